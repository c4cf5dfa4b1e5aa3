//! What every backend promises, of bubblewrap.

mod host;
#[path = "conformance/mod.rs"]
mod promises;

claims!(promises:
    a_command_says_how_it_ended,
    a_command_has_its_input_environment_and_folder,
    a_long_output_keeps_its_ends,
    a_command_over_its_time_is_gone_with_all_it_started,
    the_shell_persists,
    a_line_over_its_time_leaves_the_shell,
    a_slow_shell_comes_back,
    files_are_written_read_and_listed,
    folders_go_in_and_out,
    a_snapshot_is_the_workspace_again,
    a_workspace_that_was_shut_is_still_packed,
    an_interrupt_ends_what_runs,
    a_closed_session_is_closed,
    sixteen_sessions_at_once,
    a_session_moves_between_threads,
    what_cannot_be_is_refused_at_once,
);
