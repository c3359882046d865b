//! Quotas: how much may be sent to a provider, and when the next call may go.
//!
//! Invariant: pure arithmetic over rates and balances; the time is an argument.
