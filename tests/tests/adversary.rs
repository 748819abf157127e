//! Every attack of the operator, with every key and disk in its hands, is told with what it broke
//! and where: by an auditor who comes for the first time and by one who has seen the honest log.
//! The honest twin is found in order by both.
//!
//! The table in `README.md` says who catches what.

use access_ledger_tests::adversary::{
    approval, damage, erasure, history, identity, order, play, time,
};

mod adversary {
    mod custody;
    mod disk;
    mod listed;
    mod promises;
    mod witnesses;
}

/// One test for each attack.
macro_rules! attacks {
    ($($module:ident: $($attack:ident),+ $(,)?;)+) => {
        $($(
            #[tokio::test]
            async fn $attack() -> anyhow::Result<()> {
                play($module::$attack).await
            }
        )+)+
    };
}

attacks! {
    damage: flip_a_byte_of_an_event, flip_a_byte_of_an_entry,
        flip_a_byte_of_an_entry_and_sign_again, delete_the_last_entry, drop_one_event_of_a_batch;
    order: delete_the_last_entry_and_sign_again,
        delete_one_in_the_middle_and_chain_and_sign_again, delete_a_seal_and_chain_and_sign_again,
        delete_a_batch_and_chain_and_sign_again, swap_two, swap_two_and_chain_again, insert_one,
        insert_one_and_number_again, replay_a_batch, replay_a_batch_under_another_number;
    time: change_recorded_at, change_recorded_at_alone, backdate_a_batch, backdate_a_new_batch,
        keep_quiet_about_a_silent_source, hide_a_silence_by_an_old_heartbeat,
        hide_a_silence_by_a_forged_heartbeat, hide_a_silence_by_a_slow_clock;
    identity: replace_an_event_of_a_source, replace_an_event_and_seal_again, forge_a_source,
        forge_a_source_upon_signatures, record_as_a_stranger, change_the_genesis,
        change_the_genesis_and_seal_again, serve_the_genesis_of_another_ledger,
        swap_the_ledger_key, swap_a_source_key;
    approval: forge_an_approval, forge_an_approver, register_an_approver_alone,
        approve_as_the_ledger, approve_without_the_role, approve_ones_own_request,
        change_the_policy_with_one_signature, change_the_policy_with_a_forged_signature;
    history: restore_an_old_backup, restore_an_old_backup_and_record_on, fork, fork_and_record_on,
        serve_an_old_checkpoint_for_ever, prove_from_a_flipped_tree;
    erasure: erase_events_without_a_record, mark_an_erasure_that_never_happened;
}
