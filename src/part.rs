//! Parts: the algorithms of the layers, and how to write one.

pub use crate::chassis::{
    Admit, At, EndedBy, InFlight, Operation, OperationFuture, OperationLayer, Part, PartFor,
    PartLayer, PartService, Plan, Record, ResponseFuture, Sent, Turn,
};
