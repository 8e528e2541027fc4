//! The command line.

use std::env;

/// What is to be done.
pub(crate) enum Task {
    Explore(Options),
    Planted(Option<String>),
}

/// The model and its bounds.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) membership: bool,
    pub(crate) terms: u64,
    pub(crate) timeouts: u8,
    pub(crate) proposals: u8,
    pub(crate) crashes: u8,
    pub(crate) heartbeats: bool,
    pub(crate) pre_votes: bool,
    pub(crate) transfers: bool,
    /// Which changes of the membership are asked for.
    pub(crate) change: String,
    pub(crate) symmetric: bool,
    pub(crate) threads: usize,
    /// Shortest counter-examples first, at the price of memory.
    pub(crate) breadth: bool,
    pub(crate) seconds: u64,
    pub(crate) trace: bool,
}

impl Options {
    pub(crate) fn of(model: &str) -> Option<Options> {
        let elections = Options {
            membership: false,
            terms: 2,
            timeouts: 2,
            proposals: 1,
            crashes: 1,
            heartbeats: false,
            pre_votes: false,
            transfers: false,
            change: String::new(),
            symmetric: true,
            threads: 1,
            breadth: false,
            seconds: 3600,
            trace: true,
        };
        match model {
            "elections" => Some(elections),
            "membership" => Some(Options {
                membership: true,
                terms: 1,
                timeouts: 1,
                symmetric: false,
                proposals: 0,
                change: "replace".to_owned(),
                crashes: 0,
                ..elections
            }),
            _ => None,
        }
    }
}

pub(crate) fn parse() -> Result<Task, String> {
    parse_words(env::args().skip(1))
}

fn parse_words(mut words: impl Iterator<Item = String>) -> Result<Task, String> {
    let model = words.next().unwrap_or_default();
    if model == "planted" {
        return Ok(Task::Planted(words.next()));
    }
    let mut options = Options::of(&model).ok_or(USAGE)?;
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|text| text.parse::<u64>().ok()).ok_or(USAGE);
        let small = |number: u64| u8::try_from(number).map_err(|_| USAGE);
        match word.as_str() {
            "--terms" => options.terms = number()?.min(6),
            "--timeouts" => options.timeouts = small(number()?)?,
            "--proposals" => options.proposals = small(number()?)?,
            "--crashes" => options.crashes = small(number()?)?,
            "--heartbeats" => options.heartbeats = number()? != 0,
            "--pre-votes" => options.pre_votes = number()? != 0,
            "--transfers" => options.transfers = number()? != 0,
            "--symmetric" => options.symmetric = number()? != 0,
            "--threads" => options.threads = usize::try_from(number()?).unwrap_or(1),
            "--breadth" => options.breadth = number()? != 0,
            "--seconds" => options.seconds = number()?,
            "--change" => options.change = words.next().ok_or(USAGE)?,
            _ => return Err(USAGE.to_owned()),
        }
    }
    Ok(Task::Explore(options))
}

const USAGE: &str = "usage: model elections|membership [--terms N] [--timeouts N] [--proposals N] [--crashes N] [--heartbeats 0|1]
    [--pre-votes 0|1] [--transfers 0|1] [--change replace|shrink|remove|swap] [--threads N] [--breadth 0|1] [--seconds N]
       model planted [MISTAKE]";
