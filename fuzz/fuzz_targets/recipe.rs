//! Recipes: what is accepted reads the same once it was written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use patarm_train::Recipe;

fuzz_target!(|text: &str| {
    let (text, change) = text.split_once('\0').unwrap_or((text, ""));
    let changes: Vec<String> = change.lines().take(4).map(str::to_owned).collect();
    let _ = Recipe::parse(text, &changes);
});
