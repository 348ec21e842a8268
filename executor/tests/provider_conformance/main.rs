//! What every box-maker owes, run against each real one: a Docker engine, and bubblewrap.
//!
//! Needs the agent (`STACYVM_AGENT`, an absolute path; `make agent` builds it), a Docker engine with the image
//! `stacyvm/base:local`, and the base root file system that `scripts/setup` makes. What is missing fails the run.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

mod artifacts;
mod confinement;
mod furnishing;
mod images;
mod lifecycle;
mod limits;
mod packages;
mod privileges;
mod rig;
mod work;

use rig::Rig;

/// All facts as tests, for one kind of provider.
macro_rules! conformance {
    ($kind:ident $($area:ident: $($fact:ident),+;)+) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $fact() {
                let rig = super::Rig::of(stringify!($kind), stringify!($area));
                rig.run(|rig| async move { super::$area::$fact(&rig).await }).await;
            }
        )+)+
    };
}

/// Whatever is registered is held to all of it.
macro_rules! held {
    ($($kind:ident)+) => {
        $(mod $kind {
            facts! { $kind }
        })+
    };
}

macro_rules! facts {
    ($kind:ident) => {
        conformance! { $kind
        artifacts:
            files_are_kept_and_come_into_another_box,
            what_is_no_file_or_too_much_is_left_out;
        lifecycle:
            a_new_provider_finds_the_boxes_of_the_old_one,
            a_box_that_died_is_listed_as_dead_and_can_be_made_again,
            boxes_end_at_their_deadline_by_themselves,
            creating_twice_makes_one_box,
            creating_twice_at_once_makes_one_box,
            destroy_ends_everything_and_can_be_repeated,
            destroying_what_never_was_succeeds,
            health_answers,
            it_has_what_it_says_and_what_it_lacks_is_refused_by_name,
            nothing_is_made_when_no_time_is_left,
            nothing_stays_of_a_create_that_failed,
            ten_at_once,
            unknown_images_are_refused,
            unknown_runtimes_are_refused;
        work:
            commands_run,
            common_tools_work,
            files_are_written_and_read,
            stats_count,
            the_root_is_private_and_writable;
        furnishing:
            a_terminal_keeps_every_letter,
            its_devices_are_there_and_work,
            its_names_resolve,
            low_ports_are_for_everybody,
            the_kernel_is_shown_and_not_to_be_changed,
            what_fills_up_in_memory_ends_nobody;
        limits:
            a_daemon_ends_with_the_time_of_its_command,
            cpu_is_limited,
            memory_is_limited_and_the_agent_survives,
            processes_are_limited,
            the_agent_serves_when_processes_run_out,
            what_is_shared_with_the_executor_is_small_and_apart,
            whatever_work_leaves_is_removed;
        confinement:
            a_read_only_root_leaves_tmp_and_workspace,
            a_socket_of_the_host_cannot_be_passed_off_as_the_agent,
            boxes_do_not_see_one_another,
            calls_of_another_abi_end_the_process,
            dangerous_calls_are_refused,
            the_agent_is_out_of_reach,
            the_agents_socket_is_out_of_the_boxs_reach,
            the_host_is_out_of_sight,
            what_the_host_has_for_all_is_limited,
            without_network_there_is_loopback_only;
        privileges:
            a_capability_reaches_nothing_beyond_the_box,
            a_daemon_runs_as_its_own_user_on_a_low_port,
            a_set_uid_program_gains_nothing,
            an_archive_keeps_its_owners,
            execs_run_as_whom_they_name,
            files_of_all_users_are_roots_to_use,
            root_has_the_standard_capabilities_and_others_have_none,
            the_minimal_set_is_none,
            users_are_made_and_become;
        images:
            a_file_where_the_agent_goes_is_out_of_the_way_or_named,
            a_link_where_the_agent_goes_leads_nowhere_else,
            a_user_that_it_does_not_have_is_named,
            its_directory_is_the_default_one,
            its_entrypoint_is_not_run,
            its_environment_lies_beneath_all_others,
            its_user_is_not_asked_for_where_nobody_can_change,
            its_user_is_the_default_one,
            without_a_shell_programs_run_and_lines_do_not,
            without_one_there_are_defaults;
        packages:
            apt_installs_from_a_loopback_repository,
            git_clones_a_repository,
            npm_installs_from_a_loopback_registry,
            pip_installs_a_wheel,
            postgres_runs_as_its_own_user;
            }
    };
}

executor::each_provider_kind!(held);
