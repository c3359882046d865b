//! What only a file can do: survive, be locked, be damaged, be full.
