//! Typed refusals: status, code, message, parameter.
