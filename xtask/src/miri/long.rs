//! The tests that take minutes each under Miri, and are left to `cargo xtask miri --all`.
//!
//! Those of `owner` are chosen where they are run. All of them are safe code
//! around conversions, policies and the software CPU.

/// Beginnings of their names, as the test programs know them.
pub const LONG: &[&str] = &[
    "model::",
    "policy::",
    "foreign::",
    "convert::property_tests::",
    "convert::tests::transfer_is_a_copy_of_each_component",
    "hw::registers::tests::a_vcpu_runs_after_the_self_test_left_a_component_out",
    "hw::registers::tests::colliding_layouts_are_another_machines",
    "image::tests::a_moved_gap_was_the_tail_of_supervisor_state",
    "image::tests::update_showed_what_a_component_was_before_it_was_init",
    "legacy::tests::each_byte_counts_where_it_should",
    "validate::tests::bits_beyond_leaf_0xd_accepted",
    "validate::tests::every_rule_is_reached",
    "validate::tests::header_read_before_length_check",
    "values::tests::lbr_counters_are_legal",
    "xcr0::tests::every_combination_is_judged_as_the_manual_does",
];
