//! `iotcorestatus`: tells an IoT Core bridge, or any MQTT broker, how the pipeline is.
//!
//! - `report` PURE: what happened in, phase and what to publish out
//! - `status` PURE: the JSON; `discovery` PURE: Home Assistant's; `commands` PURE: what a command means

pub mod commands;
pub mod discovery;
pub mod report;
pub mod status;
