//! Joins that the planner can only do one way.
//!
//! A statement is planned once for a connection, perhaps while its tables are empty, when a walk through all rows of the site looks as cheap as a
//! look-up by index. `OFFSET 0` keeps the other side of a join a query of its own, looked up by its key for each row; a condition
//! that an index of some other order is made for (`NOT deleted`) stays outside of it.

/// The head of each row with a rid.
macro_rules! head_of {
    ($rid:literal) => {
        concat!(" CROSS JOIN LATERAL (SELECT * FROM head h WHERE h.site=$1 AND h.rid=", $rid, " OFFSET 0) h ")
    };
}

/// The version at each feed position.
macro_rules! version_at {
    ($vid:literal) => {
        concat!(
            " CROSS JOIN LATERAL (SELECT * FROM version v WHERE v.site=$1 AND v.vid=",
            $vid,
            " OFFSET 0) v "
        )
    };
}

/// Arrays as rows; taken for few, so that what they are joined with is looked up for each.
macro_rules! each {
    ($arrays:literal) => {
        concat!("(SELECT * FROM unnest(", $arrays, ") LIMIT cardinality($2))")
    };
}
