//! The real binary, over real sockets, on a real SQLite file, calling simulated endpoints through its real clients.

mod aws_quotas;
mod bad_input;
mod batches;
mod callbacks;
mod chat;
mod clients;
mod clock;
mod crash;
mod crowds;
mod description;
mod flow;
mod guards;
mod keys;
mod levers;
mod metrics;
mod plan;
mod quiet;
mod reload;
mod rollouts;
mod routes;
mod shared;
mod site;
