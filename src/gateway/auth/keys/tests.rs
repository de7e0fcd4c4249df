use super::*;

mod file;
mod verify;
