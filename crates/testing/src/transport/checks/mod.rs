//! The checks of the conformance suite.

mod bytes;
mod ends;
mod flow;
mod reentrancy;

use super::check::Check;

/// All of them, by name.
pub(crate) const ALL: &[(&str, Check)] = &[
    ("bytes_arrive_in_order", bytes::bytes_arrive_in_order),
    ("what_is_written_before_it_is_made_arrives", bytes::before_made),
    ("large_transfers_go_both_ways_at_once", bytes::large_both_ways),
    ("many_small_writes_arrive", bytes::many_small),
    ("thousands_of_pieces_arrive_as_one", bytes::thousands_of_pieces),
    ("all_kinds_of_writes_keep_their_order", bytes::kinds_of_writes),
    ("a_close_sends_what_is_queued", ends::close_flushes),
    ("a_close_reads_no_more", ends::close_reads_no_more),
    ("an_abort_drops_what_is_queued", ends::abort),
    ("a_reset_is_seen", ends::reset),
    ("each_side_ends_by_itself", ends::half_close),
    ("an_end_follows_what_was_written_before_it", ends::eof_with_pending_data),
    ("an_end_that_is_kept_open_does_not_spin", ends::kept_open),
    ("the_end_closes_unless_it_is_kept_open", ends::eof_closes),
    ("both_ends_close_at_once", ends::both_close),
    ("a_closed_loop_tells_both", ends::loop_closes),
    ("everything_after_the_end_does_nothing", ends::after_the_end),
    ("a_timeout_fires_once", ends::timeout),
    ("writing_pauses_above_the_high_limit_and_resumes_at_the_low_one", flow::limits),
    ("a_high_limit_of_zero_pauses_at_any_byte", flow::zero),
    ("new_limits_count_at_once", flow::new_limits),
    ("flow_control_alternates_over_a_long_transfer", flow::alternates),
    ("more_than_the_cap_ends_the_connection", flow::cap),
    ("nothing_comes_while_reading_is_paused", flow::pause_in_data),
    ("reading_can_be_paused_from_the_start", flow::pause_in_made),
    ("pausing_twice_is_pausing_once", flow::pause_twice),
    ("a_protocol_is_replaced_from_inside_of_every_callback", reentrancy::replaced),
    ("a_close_inside_of_every_callback_ends_once", reentrancy::closes),
    ("an_abort_inside_of_every_callback_ends_once", reentrancy::aborts),
    ("an_error_of_every_callback_ends_once", reentrancy::errors),
    ("a_panic_of_every_callback_ends_once", reentrancy::panics),
    ("one_protocol_writes_to_another_transport", reentrancy::foreign),
    ("the_protocol_is_reached_through_its_connection", reentrancy::connection),
];
