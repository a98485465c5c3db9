//! The contract of `Selector`: each behaviour is a test of its own for each selector.
//!
//! | module | selector |
//! |---|---|
//! | `epoll` | `EpollSelector` |
//! | `polling` | `PollingSelector` as it comes: level-triggered epoll on Linux |
//! | `polling_oneshot` | the same, as on a platform that has to re-arm |
//! | `default` | `DefaultSelector` |
//!
//! `RUSTFLAGS="--cfg polling_test_poll_backend"` makes the two in the middle use `poll(2)`. What
//! needs no operating system is in `tulipa_testing::check_selector`, and is tested on
//! `VirtualSelector` by `virtual_selector.rs`.
#![cfg(all(target_os = "linux", not(miri)))]

#[path = "../common/mod.rs"]
mod common;
mod errors;
mod files;
mod foreign;
mod hygiene;
mod ownership;
mod readiness;
mod waiting;

tulipa_testing::selector_tests!(epoll for crate::common::os::Epoll);
tulipa_testing::selector_tests!(polling for crate::common::os::Polling);
tulipa_testing::selector_tests!(polling_oneshot for crate::common::os::PollingOneshot);
tulipa_testing::selector_tests!(default for crate::common::os::Default);

/// The behaviours that need an operating system, as tests.
macro_rules! behaviours_of_real_selectors {
    ($module:ident for $kind:ty) => {
        crate::suite! { $module for $kind:
            errors {
                an_error_names_the_operation_and_the_descriptor,
                after_a_failed_registration_nothing_is_registered,
                after_a_failed_change_the_interest_is_none_and_may_be_set_again,
                a_virtual_source_is_refused,
                priority_where_there_is_none_is_refused_and_undone,
                a_source_closed_behind_our_back_can_be_deregistered,
                b02_a_closed_source_with_a_live_duplicate_goes_quiet,
                b02_a_closed_source_that_is_still_registered_disturbs_nobody,
                b02_recovery_keeps_all_other_sources,
                b20_failing_registrations_leak_nothing,
                b21_a_failing_wait_loses_no_event,
            }
            files {
                b22_a_regular_file_is_always_ready,
                b22_dev_null_is_always_ready,
                b22_an_always_ready_file_never_blocks_a_wait_and_starves_nobody,
                b22_an_always_ready_file_without_interest_is_quiet,
                b22_many_always_ready_files_share_a_small_batch,
            }
            foreign {
                the_descriptor_is_readable_when_something_is_ready,
                the_descriptor_rings_between_waits_once_it_was_asked_for,
                a_call_before_the_descriptor_was_asked_for_is_passed_on,
                a_selector_can_be_watched_by_another_one,
            }
            hygiene {
                every_descriptor_is_closed_on_exec,
                b26_everything_is_given_back_when_the_selector_is_dropped,
                b26_close_gives_everything_back_while_registrations_live,
                a_live_notifier_keeps_no_more_than_its_bell,
                b01_a_later_file_with_the_same_number_gets_no_event_of_the_earlier_one,
                b27_flags_of_a_source_are_left_alone,
            }
            ownership {
                one_source_may_be_registered_with_several_selectors,
                a_source_is_dropped_once_when_it_is_deregistered,
                a_source_is_dropped_once_when_the_selector_closes,
                a_refused_source_is_dropped_once,
                destructors_may_use_the_selector_when_a_registration_ends,
                destructors_may_use_the_selector_when_it_closes,
                destructors_of_refused_sources_may_use_the_selector,
                as_fd_may_use_the_selector,
                a_source_may_own_its_registration,
                b03_registering_again_in_the_same_turn_loses_nothing,
            }
            readiness {
                an_end_of_file_is_readable_and_no_hangup_while_we_can_write,
                a_closed_peer_wakes_both_sides,
                a_reset_wakes_every_interested_side_with_an_error,
                b07_a_reset_without_interest_costs_no_wakeup,
                b09_data_before_a_reset_can_still_be_read,
                a_pipe_whose_reader_is_gone_wakes_the_writer,
                b08_a_pipe_is_reported_until_its_end_is_read,
                a_full_socket_is_writable_again_once_the_peer_reads,
                a_listener_is_readable_until_all_are_accepted,
                a_refused_connection_is_writable_with_an_error,
                an_eventfd_is_readable_while_its_count_is_not_zero,
                urgent_data_is_priority_and_not_readable,
                urgent_data_does_not_look_like_data_to_those_who_did_not_ask,
                urgent_data_and_data_are_both_reported,
                b28_a_blocking_source_blocks_no_wait,
            }
            waiting {
                b23_more_ready_than_the_buffer_holds_starve_nobody,
                b11_interruptions_are_neither_errors_nor_early_ends,
                a_wait_ends_when_another_thread_makes_a_source_ready,
                a_wait_with_a_far_deadline_ends_when_a_source_is_ready,
                a_ring_that_is_too_late_is_no_error,
                registrations_made_while_others_call_are_all_reported,
            }
        }
    };
}

/// `real::epoll` and so on.
mod real {
    behaviours_of_real_selectors!(epoll for crate::common::os::Epoll);
    behaviours_of_real_selectors!(polling for crate::common::os::Polling);
    behaviours_of_real_selectors!(polling_oneshot for crate::common::os::PollingOneshot);
    behaviours_of_real_selectors!(default for crate::common::os::Default);
}
