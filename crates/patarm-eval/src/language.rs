//! The language of a text, as the Python package `langdetect` 1.0.9 sees it.
//!
//! The detector walks at random over character n-grams (Nakatani, *Language Detection Library for
//! Java*, 2010). IFEval runs it without a seed, so its verdicts on short or mixed text differ from
//! run to run; here the seed is always 0, and the crate used reproduces `langdetect` with that seed
//! bit for bit.

use std::sync::LazyLock;

use langdetect::{Compat, DetectorFactory, Seed};

/// The code of the language of a text (`en`, `zh-cn`, …), or `None` where the text has no feature to
/// tell by, such as only digits: rules then count as followed.
pub(crate) fn detect(text: &str) -> Option<String> {
    static FACTORY: LazyLock<DetectorFactory> = LazyLock::new(|| {
        let mut factory = DetectorFactory::new(Compat::python(11));
        // The built-in profiles are complete, so that nothing can fail here; if it did, the factory
        // would have fewer languages, and the test of all of them would say so.
        _ = factory.load_builtin(&DetectorFactory::builtin_files());
        factory.seed = Seed::Int(0);
        factory
    });
    FACTORY.detect(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_are_told_apart() {
        assert_eq!(DetectorFactory::builtin_files().len(), 55);
        for (text, code) in [
            ("The quick brown fox jumps over the lazy dog.", "en"),
            ("Der schnelle braune Fuchs springt über den faulen Hund.", "de"),
            ("আমি বাংলায় গান গাই", "bn"),
            ("میں اردو میں لکھتا ہوں", "ur"),
        ] {
            assert_eq!(detect(text).as_deref(), Some(code), "{text}");
        }
    }

    #[test]
    fn what_has_no_letters_has_no_language() {
        assert_eq!(detect(""), None);
        assert_eq!(detect("12 34 !?"), None);
    }

    #[test]
    fn detection_repeats() {
        let text = "ok no data la casa";
        assert!((0..5).all(|_| detect(text) == detect(text)));
    }
}
