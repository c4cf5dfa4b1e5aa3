//! What untrusted code tries, against bubblewrap.

#[path = "attacks/mod.rs"]
mod attempts;
mod host;

claims!(attempts:
    files_of_the_host_cannot_be_read,
    nothing_outside_the_disk_can_be_written,
    the_environment_of_the_supervisor_is_not_there,
    no_descriptor_is_inherited,
    processes_of_the_host_cannot_be_seen_or_ended,
    there_is_no_network,
    a_fork_bomb_ends_with_its_time,
    a_memory_bomb_is_killed,
    the_disk_has_an_end,
    an_endless_output_is_cut,
    nothing_survives_to_change_a_verdict,
    no_namespace_is_made_inside,
    other_processes_cannot_be_traced,
    a_link_leads_nowhere,
    what_blocks_a_reader_is_not_read,
    names_are_only_names,
    many_files_and_deep_folders_are_bounded,
    the_first_process_is_no_way_out,
);
