//! The program as a user runs it: arguments in; standard output, standard error
//! and exit code out.

mod bench;
mod data;
mod disk;
mod documentation;
mod eval;
mod exit_codes;
mod goldens;
mod model;
mod reward_models;
mod serve;
mod stages;
mod steps;
mod support;
mod teacher;
mod training;
