//! Models on step benchmarks: anything that scores responses on prefixes of solutions,
//! any completer asked for the first mistake.

use patarm_reward::{
    completer::{Completer, CompletionRequest},
    model::RewardModel,
    observer::Observer,
};
use patarm_text::{Conversation, Solution};

use super::{StepAnswer, StepFault, StepItem};
use crate::{
    Error, Result,
    benchmark::{
        Subject,
        answers::{Answer, AnswerReport, Answered, ask},
        item::Item,
    },
};

/// What is said of every solution, and what was counted on the way.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepAnswers {
    /// One answer a solution, in their order.
    pub answers: Vec<Result<StepAnswer, StepFault>>,
    /// What was counted.
    pub report: AnswerReport,
}

/// Solutions a process reward model is asked about at a time.
const CHUNK: usize = 64;

/// Asks a reward model that gives a number for each step; `None` where it gives none for
/// the first solution, and is no process reward model.
///
/// # Errors
/// When it gives another number of rewards than it was asked for, or the run was
/// interrupted.
pub fn ask_step_values(
    items: &[StepItem],
    model: &dyn RewardModel,
    observer: &dyn Observer,
) -> Result<Option<StepAnswers>> {
    let Some(first) = items.first() else {
        return Ok(None);
    };
    if let Some(asked) = ask_solutions(items, model, observer)? {
        return Ok(Some(asked));
    }
    let probe = model.score(&[whole(first)]);
    if !probe.iter().flatten().any(|reward| !reward.step_values.is_empty()) {
        return Ok(None);
    }
    let mut answers = Vec::with_capacity(items.len());
    for chunk in items.chunks(CHUNK) {
        let asked: Vec<_> = chunk.iter().map(whole).collect();
        let rewards = model.score(&asked);
        if rewards.len() != asked.len() {
            let (name, given) = (model.name(), rewards.len());
            let message = format!("model {name} gave {given} rewards for {} items", asked.len());
            return Err(Error::bad_input(message));
        }
        answers.extend(rewards.into_iter().map(|reward| match reward {
            Ok(reward) => Ok(StepAnswer::Scores(reward.step_values)),
            Err(fault) => Err(StepFault::Model(fault.to_string())),
        }));
        if observer.is_interrupted() {
            return Err(Error::interrupted());
        }
    }
    Ok(Some(StepAnswers { answers, report: AnswerReport::default() }))
}

/// Asks a model that takes solutions in the benchmark's own steps.
fn ask_solutions(
    items: &[StepItem],
    model: &dyn RewardModel,
    observer: &dyn Observer,
) -> Result<Option<StepAnswers>> {
    let mut answers = Vec::with_capacity(items.len());
    for chunk in items.chunks(CHUNK) {
        let solutions: Vec<Solution> = chunk.iter().map(StepItem::solution).collect();
        let Some(scores) = model.score_steps(&solutions) else {
            return Ok(None);
        };
        if scores.len() != solutions.len() {
            let (name, given) = (model.name(), scores.len());
            let message = format!("model {name} scored {given} of {} solutions", solutions.len());
            return Err(Error::bad_input(message));
        }
        answers.extend(scores.into_iter().map(|scores| match scores {
            Ok(scores) => Ok(StepAnswer::Scores(scores)),
            Err(fault) => Err(StepFault::Model(fault.to_string())),
        }));
        if observer.is_interrupted() {
            return Err(Error::interrupted());
        }
    }
    Ok(Some(StepAnswers { answers, report: AnswerReport::default() }))
}

/// A solution as one response, its steps parted by an empty line.
fn whole(item: &StepItem) -> patarm_text::Item {
    let prompt = Conversation::from_user(&item.problem);
    patarm_text::Item { prompt, response: item.steps.join("\n\n") }
}

/// Asks a subject that scores responses for every prefix of every solution: the score
/// of a step is the score of the solution cut after it, steps parted by an empty line.
///
/// Scores are in the subject's own unit, so that a threshold must be chosen for it; see
/// [`super::threshold::ThresholdRule`].
///
/// # Errors
/// When the subject cannot score responses or the run was interrupted.
pub fn ask_prefixes(
    items: &[StepItem],
    subject: &Subject<'_>,
    observer: &dyn Observer,
) -> Result<StepAnswers> {
    let asked: Vec<Item> = items.iter().map(prefixes).collect();
    let answered = ask(&asked, &|_| Vec::new(), subject, observer)?;
    let answers = answered.answered.iter().map(of_prefixes).collect();
    Ok(StepAnswers { answers, report: answered.report })
}

/// The prefixes of a solution as responses to its problem.
fn prefixes(item: &StepItem) -> Item {
    let mut so_far = String::new();
    let responses = item.steps.iter().map(|step| {
        if !so_far.is_empty() {
            so_far.push_str("\n\n");
        }
        so_far.push_str(step);
        so_far.clone()
    });
    Item {
        id: item.id.clone(),
        prompt: Conversation::from_user(&item.problem),
        responses: responses.collect(),
        ..Item::default()
    }
}

fn of_prefixes(answered: &Answered) -> Result<StepAnswer, StepFault> {
    let Answer::Scores(scores) = &answered.answer else {
        return Err(StepFault::Unscored);
    };
    let known: Option<Vec<f64>> = scores.iter().copied().collect();
    known.map(StepAnswer::Scores).ok_or_else(|| match answered.faults.first() {
        Some(fault) => StepFault::Model(fault.clone()),
        None => StepFault::Unscored,
    })
}

/// How a completer is asked for the first mistake.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FirstErrorOptions {
    /// Answers an item; the most frequent counts.
    pub votes: usize,
    /// Sampling temperature; 0 = greedy.
    pub temperature: f64,
    /// Longest answer in tokens.
    pub max_tokens: usize,
    /// Seed.
    pub seed: u64,
}

/// A generative model that is shown the numbered steps and asked for the first wrong
/// one, as critics are in ProcessBench (arXiv 2412.06559 section 4.2), in words of our
/// own.
#[derive(Clone, Copy)]
pub struct FirstErrorJudge<'a> {
    /// Who is asked.
    pub completer: &'a dyn Completer,
    /// How.
    pub options: FirstErrorOptions,
}

impl FirstErrorJudge<'_> {
    /// An answer for every solution, each failing alone.
    #[must_use]
    pub fn judge(&self, items: &[StepItem]) -> Vec<Result<StepAnswer, StepFault>> {
        let votes = self.options.votes.max(1);
        let requests: Vec<CompletionRequest> = items
            .iter()
            .enumerate()
            .flat_map(|(place, item)| (0..votes).map(move |vote| (place, item, vote)))
            .map(|(place, item, vote)| self.request(item, (place * votes + vote) as u64))
            .collect();
        let results = self.completer.complete(&requests);
        items
            .iter()
            .zip(results.chunks(votes))
            .map(|(item, results)| {
                let votes: Vec<Result<Option<usize>, StepFault>> = results
                    .iter()
                    .map(|result| match result {
                        Ok(completion) => parse_first_error(&completion.text, item.steps.len()),
                        Err(error) => Err(StepFault::Model(error.to_string())),
                    })
                    .collect();
                majority(&votes).map(StepAnswer::FirstWrong)
            })
            .collect()
    }

    fn request(&self, item: &StepItem, counter: u64) -> CompletionRequest {
        let FirstErrorOptions { temperature, max_tokens, seed, .. } = self.options;
        CompletionRequest {
            prompt: Conversation::from_user(question(item)),
            max_tokens,
            temperature,
            top_p: 1.0,
            stop: Vec::new(),
            seed: crate::random::draw(seed, counter),
        }
    }
}

fn question(item: &StepItem) -> String {
    let steps: String = item
        .steps
        .iter()
        .enumerate()
        .map(|(number, step)| format!("<step number=\"{number}\">\n{step}\n</step>\n"))
        .collect();
    format!(
        "A problem and a solution in numbered steps follow. Check the steps in their order and \
         find the first one that is wrong.\n\n<problem>\n{}\n</problem>\n\n{steps}\n\
         Say briefly what you checked. End with <first_error>N</first_error>, where N is the \
         number of the first wrong step, or none when every step is right.",
        item.problem
    )
}

/// Reads the last `<first_error>` of what a judge generated.
fn parse_first_error(text: &str, num_steps: usize) -> Result<Option<usize>, StepFault> {
    let unreadable = || StepFault::Model("no readable <first_error>".to_owned());
    let (_, after) = text.rsplit_once("<first_error>").ok_or_else(unreadable)?;
    let (content, _) = after.split_once("</first_error>").ok_or_else(unreadable)?;
    let content = content.trim();
    if content.eq_ignore_ascii_case("none") || content == "-1" {
        return Ok(None);
    }
    let place: usize = content.parse().map_err(|_| unreadable())?;
    match place < num_steps {
        true => Ok(Some(place)),
        false => Err(StepFault::NoSuchStep { place, steps: num_steps }),
    }
}

/// The most frequent readable vote, of equals the one met first; the first fault when
/// none is readable.
fn majority(votes: &[Result<Option<usize>, StepFault>]) -> Result<Option<usize>, StepFault> {
    let readable: Vec<Option<usize>> = votes.iter().filter_map(|v| v.clone().ok()).collect();
    let count = |vote: &Option<usize>| readable.iter().filter(|v| *v == vote).count();
    let mut best: Option<&Option<usize>> = None;
    for vote in &readable {
        if best.is_none_or(|best| count(vote) > count(best)) {
            best = Some(vote);
        }
    }
    match (best, votes.first()) {
        (Some(vote), _) => Ok(*vote),
        (None, Some(fault)) => fault.clone(),
        (None, None) => Err(StepFault::Missing),
    }
}

impl std::fmt::Debug for FirstErrorJudge<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FirstErrorJudge").field("options", &self.options).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use patarm_reward::{
        completer::{Completion, CompletionError, CompletionResult},
        model::{ItemFault, Reward},
        observer::Silent,
    };

    use super::*;
    use crate::steps::StepTruth;

    fn item(id: &str, steps: &[&str]) -> StepItem {
        StepItem {
            id: id.to_owned(),
            cluster: 0,
            subset: "s".to_owned(),
            problem: "p".to_owned(),
            steps: steps.iter().map(|s| (*s).to_owned()).collect(),
            truth: StepTruth::FirstWrong(None),
        }
    }

    /// Scores a text by its length; fails on an exclamation mark.
    struct Length;

    impl RewardModel for Length {
        fn score(&self, items: &[patarm_text::Item]) -> Vec<Result<Reward, ItemFault>> {
            let score = |item: &patarm_text::Item| match item.response.contains('!') {
                true => Err(ItemFault::Engine("no".to_owned())),
                false => Ok(Reward::of(item.response.len() as f64)),
            };
            items.iter().map(score).collect()
        }

        fn name(&self) -> String {
            "length".to_owned()
        }
    }

    #[test]
    fn prefixes_grow_and_fail_alone() {
        let items = [item("a", &["x", "yy"]), item("b", &["x", "!"]), item("c", &["zzz"])];
        let asked = ask_prefixes(&items, &Subject::Reward(&Length), &Silent).expect("answers");
        assert_eq!(asked.answers[0], Ok(StepAnswer::Scores(vec![1.0, 5.0])));
        assert!(matches!(&asked.answers[1], Err(StepFault::Model(_))));
        assert_eq!(asked.answers[2], Ok(StepAnswer::Scores(vec![3.0])));
    }

    /// A number for each paragraph: its length.
    struct Paragraphs;

    impl RewardModel for Paragraphs {
        fn score(&self, items: &[patarm_text::Item]) -> Vec<Result<Reward, ItemFault>> {
            let values = |item: &patarm_text::Item| {
                item.response.split("\n\n").map(|p| p.len() as f64).collect::<Vec<f64>>()
            };
            let reward = |i| Ok(Reward { step_values: values(i), ..Reward::of(0.0) });
            items.iter().map(reward).collect()
        }

        fn name(&self) -> String {
            "paragraphs".to_owned()
        }
    }

    /// A number for each step it is given, whatever stands in it: its length.
    struct Steps;

    impl RewardModel for Steps {
        fn score(&self, _: &[patarm_text::Item]) -> Vec<Result<Reward, ItemFault>> {
            Vec::new()
        }

        fn score_steps(&self, solutions: &[Solution]) -> Option<Vec<Result<Vec<f64>, ItemFault>>> {
            let lengths = |s: &Solution| s.steps.iter().map(|step| step.len() as f64).collect();
            Some(solutions.iter().map(|solution| Ok(lengths(solution))).collect())
        }

        fn name(&self) -> String {
            "steps".to_owned()
        }
    }

    #[test]
    fn steps_with_empty_lines_inside_stay_one_step() {
        let items = [item("a", &["x\n\ny", "", "yy"])];
        let asked = ask_step_values(&items, &Steps, &Silent).expect("answers").expect("steps");
        assert_eq!(asked.answers[0], Ok(StepAnswer::Scores(vec![4.0, 0.0, 2.0])));
    }

    #[test]
    fn a_process_reward_model_is_asked_once_a_solution() {
        let items = [item("a", &["x", "yy"]), item("b", &["zzz"])];
        let asked = ask_step_values(&items, &Paragraphs, &Silent).expect("answers");
        let answers = asked.expect("it gives step values").answers;
        assert_eq!(answers[0], Ok(StepAnswer::Scores(vec![1.0, 2.0])));
        assert_eq!(answers[1], Ok(StepAnswer::Scores(vec![3.0])));
        assert_eq!(ask_step_values(&items, &Length, &Silent).expect("answers"), None);
        assert_eq!(ask_step_values(&[], &Paragraphs, &Silent).expect("answers"), None);
    }

    /// Names the last step as the first error, except in solutions of one step; fails
    /// on a question with an exclamation mark.
    struct LastStep;

    impl Completer for LastStep {
        fn complete(&self, requests: &[CompletionRequest]) -> Vec<CompletionResult> {
            let answer = |request: &CompletionRequest| {
                let question = request.prompt.transcript();
                if question.contains('!') {
                    return Err(CompletionError::Interrupted);
                }
                let text = match question.matches("<step number").count() {
                    1 => "<first_error>none</first_error>".to_owned(),
                    n => format!("Hm. <first_error>{}</first_error>", n - 1),
                };
                Ok(Completion { text, num_tokens: 3, truncated: false, logprobs: None })
            };
            requests.iter().map(answer).collect()
        }

        fn name(&self) -> String {
            "last step".to_owned()
        }
    }

    #[test]
    fn a_completer_names_first_errors() {
        let options = FirstErrorOptions { votes: 3, temperature: 1.0, max_tokens: 64, seed: 1 };
        let judge = FirstErrorJudge { completer: &LastStep, options };
        let answers = judge.judge(&[item("a", &["x", "y"]), item("b", &["x"]), item("c", &["!"])]);
        assert_eq!(answers[0], Ok(StepAnswer::FirstWrong(Some(1))));
        assert_eq!(answers[1], Ok(StepAnswer::FirstWrong(None)));
        assert!(matches!(&answers[2], Err(StepFault::Model(_))));
    }

    #[test]
    fn first_errors_are_read() {
        let read = |text: &str| parse_first_error(text, 3);
        assert_eq!(read("so <first_error>2</first_error>"), Ok(Some(2)));
        assert_eq!(
            read("<first_error>0</first_error> no: <first_error> None </first_error>"),
            Ok(None)
        );
        assert_eq!(read("<first_error>-1</first_error>"), Ok(None));
        assert_eq!(
            read("<first_error>3</first_error>"),
            Err(StepFault::NoSuchStep { place: 3, steps: 3 })
        );
        for bad in ["", "2", "<first_error>2", "<first_error>two</first_error>"] {
            assert!(matches!(read(bad), Err(StepFault::Model(_))), "{bad}");
        }
    }

    #[test]
    fn the_majority_counts() {
        let fault = || Err(StepFault::Unscored);
        assert_eq!(majority(&[Ok(Some(1)), Ok(None), Ok(None)]), Ok(None));
        assert_eq!(majority(&[Ok(Some(1)), Ok(None)]), Ok(Some(1)));
        assert_eq!(majority(&[fault(), Ok(Some(2))]), Ok(Some(2)));
        assert_eq!(majority(&[fault(), fault()]), fault());
        assert_eq!(majority(&[]), Err(StepFault::Missing));
    }

    #[test]
    fn texts_of_data_stand_inside_the_question() {
        let asked = question(&item("a", &["one", "two"]));
        assert!(asked.contains("<step number=\"1\">\ntwo\n</step>"), "{asked}");
        assert!(asked.contains("<problem>\np\n</problem>"));
    }
}
