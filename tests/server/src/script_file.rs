//! The fault script as JSON: a list of objects, each a [`Rule`].
//!
//! ```json
//! [ {"stage": "rcpt", "match": "bad@", "reply": "550 5.1.1 No such user"},
//!   {"stage": "final", "nth": 2, "times": "once", "end": "close"},
//!   {"stage": "content", "after_bytes": 100000, "end": "reset"},
//!   {"stage": "ehlo", "raw": "250-x\r\n", "repeat": 10000, "then": "close"},
//!   {"stage": "mail", "hold": "before-mail"} ]
//! ```
//!
//! Keys: `stage` (see [`Stage::name`]); `match` (text), `connection`, `nth`, `after_bytes`
//! (numbers); `times` (a number, "once" or "always", the default); one of `reply` (a string as on
//! the wire, or a list of such lines, the code in the first), `raw` (text) or `raw_base64` with
//! `repeat`, `flood` (text), `hold` (the gate's name), `end`; and `then`. The endings are "hang",
//! "stall", "close" and "reset".

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::reply::Reply;
use super::script::{Action, Ending, Gate, Rule, Stage};

/// Reads the rules of a script.
pub fn parse_script(json: &str) -> Result<Vec<Rule>, String> {
    let specs: Vec<RuleSpec> =
        serde_json::from_str(json).map_err(|error| format!("fault script: {error}"))?;
    specs
        .into_iter()
        .enumerate()
        .map(|(at, spec)| {
            spec.into_rule()
                .map_err(|error| format!("rule {}: {error}", at + 1))
        })
        .collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleSpec {
    stage: String,
    #[serde(rename = "match")]
    text: Option<String>,
    connection: Option<usize>,
    nth: Option<usize>,
    times: Option<Times>,
    after_bytes: Option<u64>,
    reply: Option<ReplySpec>,
    raw: Option<String>,
    raw_base64: Option<String>,
    repeat: Option<usize>,
    flood: Option<String>,
    hold: Option<String>,
    end: Option<EndingSpec>,
    then: Option<EndingSpec>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Times {
    Number(usize),
    Word(TimesWord),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum TimesWord {
    Once,
    Always,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ReplySpec {
    Text(String),
    Lines(Vec<String>),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum EndingSpec {
    Hang,
    Stall,
    Close,
    Reset,
}

impl From<EndingSpec> for Ending {
    fn from(spec: EndingSpec) -> Self {
        match spec {
            EndingSpec::Hang => Self::Hang,
            EndingSpec::Stall => Self::Stall,
            EndingSpec::Close => Self::Close,
            EndingSpec::Reset => Self::Reset,
        }
    }
}

impl RuleSpec {
    fn into_rule(self) -> Result<Rule, String> {
        let stage = Stage::from_name(&self.stage)
            .ok_or_else(|| format!("there is no stage {:?}", self.stage))?;
        let mut rule = Rule::at(stage);
        rule.text = self.text;
        rule.connection = self.connection;
        rule.nth = self.nth;
        rule.times = match self.times {
            Some(Times::Number(number)) => Some(number),
            Some(Times::Word(TimesWord::Once)) => Some(1),
            Some(Times::Word(TimesWord::Always)) | None => None,
        };
        if let Some(octets) = self.after_bytes {
            rule = rule.after_bytes(octets);
        }
        rule.then = self.then.map(Ending::from);
        let repeat = self.repeat.unwrap_or(1);
        let mut actions = Vec::new();
        if let Some(reply) = self.reply {
            let text = match reply {
                ReplySpec::Text(text) => text,
                ReplySpec::Lines(lines) => lines.join("\n"),
            };
            actions.push(Action::Reply(Reply::parse(&text)?));
        }
        if let Some(raw) = self.raw {
            actions.push(Action::Raw(raw.into_bytes(), repeat));
        }
        if let Some(raw) = self.raw_base64 {
            let bytes = STANDARD.decode(raw).map_err(|error| error.to_string())?;
            actions.push(Action::Raw(bytes, repeat));
        }
        if let Some(flood) = self.flood {
            actions.push(Action::Flood(flood.into_bytes()));
        }
        if let Some(name) = self.hold {
            actions.push(Action::Hold(Gate::new(name)));
        }
        if let Some(ending) = self.end {
            actions.push(Action::End(ending.into()));
        }
        if actions.len() > 1 {
            return Err("more than one action".to_owned());
        }
        rule.action = match actions.pop() {
            Some(action) => action,
            None if rule.then.is_some() => Action::Own,
            None => return Err("no action".to_owned()),
        };
        Ok(rule)
    }
}
