//! Bad input through the command: each ends with one message that names what is wrong, the stated exit code, and no
//! file left behind.

#[path = "../build/mod.rs"]
mod build;
mod command;
#[path = "../common/folder.rs"]
mod folder;
mod libraries;
mod models;
mod reading;
mod running;
