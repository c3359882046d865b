//! landbridge carries queued prompt jobs from OpenAI to Amazon Bedrock, as gradually as its operators want, and back in
//! a second when they must.
//!
//! The house has floors; imports go only downwards (a test holds this):
//!
//! | floor | rooms |
//! |---|---|
//! | 7 | [`cli`], [`daemon`] (and `main`) |
//! | 6 | [`http`], [`simulate`] |
//! | 5 | [`engine`] |
//! | 4 | [`provider`], [`store`], [`watch`], [`settings`], [`metrics`] |
//! | 3 | [`snapshot`], [`wire`] |
//! | 2 | [`routing`], [`rollout`], [`quota`], [`job`] |
//! | 1 | [`spec`], [`catalog`], [`access`] |
//! | 0 | [`names`], [`ids`], [`money`], [`clock`], [`usage`], [`diagnostic`], [`yaml`] |
//!
//! One job, one direction: `http` validates and `store` makes it durable; `engine` claims it under a permit; `routing`
//! decides on one snapshot; the decision and the intent are stored; `wire` translates; `provider` calls; `wire` reads the
//! answer or the fault; `job` says the next state; `store` settles by fence; `metrics` counts.

#![forbid(unsafe_code)]

pub mod clock;
pub mod diagnostic;
pub mod ids;
pub mod money;
pub mod names;
pub mod usage;
pub mod yaml;

pub mod access;
pub mod catalog;
pub mod spec;

pub mod job;
pub mod quota;
pub mod rollout;
pub mod routing;

pub mod snapshot;
pub mod wire;

pub mod metrics;
pub mod provider;
pub mod settings;
pub mod store;
pub mod watch;

pub mod engine;

pub mod http;
pub mod simulate;

pub mod cli;
pub mod daemon;
