//! Balances calls over endpoints.

#![allow(dead_code)]
mod load;
