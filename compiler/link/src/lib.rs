//! Plan, driver, and linking into memory or object files.
