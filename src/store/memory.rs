//! A store in memory: for tests and simulation. Same promises but durability.
