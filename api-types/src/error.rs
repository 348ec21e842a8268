//! Errors.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::word::{Open, words};

words! {
    /// The kinds of errors that clients tell apart.
    ErrorCode {
        /// The request is wrong in itself.
        BadRequest => "BAD_REQUEST",
        /// The key is missing or unknown.
        Unauthorized => "UNAUTHORIZED",
        /// The key is good, the wish is not allowed.
        Forbidden => "FORBIDDEN",
        /// There is no such thing, or it is another tenant's.
        NotFound => "NOT_FOUND",
        /// The route is there, the method is not.
        MethodNotAllowed => "METHOD_NOT_ALLOWED",
        /// The exec's time was up.
        Timeout => "TIMEOUT",
        /// The state of things does not allow it.
        Conflict => "CONFLICT",
        /// It was there and is not kept any more.
        Gone => "GONE",
        /// A body or a reply over its limit.
        TooLarge => "TOO_LARGE",
        /// A body in a form that is not taken.
        UnsupportedMediaType => "UNSUPPORTED_MEDIA_TYPE",
        /// A range of bytes that begins past the end.
        RangeNotSatisfiable => "RANGE_NOT_SATISFIABLE",
        /// A quota or a rate.
        ResourceLimit => "RESOURCE_LIMIT",
        /// Our fault. The log has the detail.
        InternalError => "INTERNAL_ERROR",
        /// Not now. Trying again can help.
        Unavailable => "UNAVAILABLE",
        /// What this would change could not be recorded. Trying again can help.
        AuditUnavailable => "AUDIT_UNAVAILABLE",
    }
}

/// The body of every error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorBody {
    /// What kind it is.
    #[cfg_attr(feature = "openapi", schema(value_type = ErrorCode))]
    pub code: Open<ErrorCode>,
    /// One sentence for people.
    pub message: Cow<'static, str>,
}
