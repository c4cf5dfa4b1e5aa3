//! An agent's episode on a display: what it is shown, what it does, and what the rule says of that.

use super::{
    Act, Actions, Did, Display, Look, Options, Picture, Screen,
    act::{self, Deed, Fault},
    difference::difference,
    rule::{self, Facts},
};
use crate::world::{
    Action, Call, CallResult, ImageRef, Observation, Outcome, Part, Shot, StepVerdict, Tool, WorldError,
};

/// Calls that are done in one step; the rest is not.
const CALLS: usize = 8;

/// How an agent has ended its episode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By saying that it is done.
    Done,
    /// By saying that it cannot be done.
    Fail,
    /// By saying something else, without a call.
    Said,
}

/// One episode on a display at a time.
#[derive(Debug)]
pub struct Stage {
    options: Options,
    /// What the agent has seen last: its numbers count.
    screen: Screen,
    /// The best so far.
    progress: f64,
    /// The step before, where it changed nothing.
    in_vain: Option<Vec<(String, String)>>,
    ended: Option<Ended>,
    over: bool,
    images: Vec<(ImageRef, Vec<u8>)>,
}

impl Stage {
    /// Before its first episode.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            screen: Screen::default(),
            progress: 0.0,
            in_vain: None,
            ended: None,
            over: false,
            images: Vec::new(),
        }
    }

    /// What can be called.
    pub fn tools(actions: Actions) -> Vec<Tool> {
        act::tools(actions)
    }

    /// An episode begins with what is on the display now.
    pub fn begin(&mut self, display: &mut dyn Display) -> Result<Observation, WorldError> {
        *self = Self { images: std::mem::take(&mut self.images), ..Self::new(self.options.clone()) };
        let look = display.look()?;
        self.progress = look.progress.unwrap_or(0.0);
        self.see(look)?;
        let parts = self.parts(None);
        Ok(Observation {
            parts,
            state: Some(self.screen.state()),
            shot: self.shot(None),
            ..Observation::default()
        })
    }

    /// What the agent wants is done.
    pub fn step(&mut self, display: &mut dyn Display, action: &Action) -> Result<Outcome, WorldError> {
        let calls: &[Call] = match action {
            Action::Calls(calls) => calls,
            Action::Text(_) => {
                self.ended = Some(Ended::Said);
                &[]
            }
            Action::Malformed => {
                let rule = Some(StepVerdict::bad("neither a call nor an answer"));
                let observation = Observation {
                    state: Some(self.screen.state()),
                    shot: self.shot(None),
                    ..Observation::default()
                };
                return Ok(Outcome { observation, rule, done: false });
            }
        };
        let before = self.screen.clone();
        let mut facts = Facts::default();
        let mut results = Vec::new();
        let mut point = None;
        // What a display says of itself.
        let mut unasked = Vec::new();
        for (at, call) in calls.iter().enumerate() {
            if self.ended.is_some() || self.over || at >= CALLS {
                let why = if at >= CALLS { "too many calls at once" } else { "the task is over" };
                results.push(CallResult::error(call, format!("Not done: {why}.")));
                continue;
            }
            if at > 0 {
                self.see(display.look()?)?;
            }
            let size = (self.options.width, self.options.height);
            let deed = act::read(call, self.options.actions, &before, &self.screen, size);
            let did = match deed {
                Ok(Deed::Act(act)) => {
                    point = act.point().or(point);
                    match display.act(&act)? {
                        Did::Done => Ok(told(&act, &self.screen)),
                        Did::Told(more) => {
                            let whole = format!("{}; {more}", told(&act, &self.screen));
                            unasked.push(more);
                            Ok(whole)
                        }
                        Did::Refused(why) => Err(Fault::call(why)),
                    }
                }
                Ok(Deed::Done) => {
                    self.ended = Some(Ended::Done);
                    Ok("done".to_owned())
                }
                Ok(Deed::Fail) => {
                    self.ended = Some(Ended::Fail);
                    Ok("given up".to_owned())
                }
                Err(fault) => Err(fault),
            };
            results.push(match did {
                Ok(told) => CallResult::text(call, told),
                Err(fault) => {
                    facts.fault = facts.fault.or(Some(fault.reason));
                    CallResult::error(call, fault.told)
                }
            });
        }
        let look = display.look()?;
        let progress = look.progress;
        self.see(look)?;
        facts.changed = self.screen.differs(&before);
        facts.ended = self.ended;
        facts.progress = progress.map(|after| (self.progress, after));
        self.progress = self.progress.max(progress.unwrap_or(0.0));
        let acts: Vec<(String, String)> = calls.iter().map(wanted).collect();
        facts.again = self.in_vain.as_ref() == Some(&acts);
        self.in_vain = (!facts.changed).then_some(acts);

        let done = self.ended.is_some() || self.over;
        let shot = self.shot(
            point.map(|point| (point.x / self.options.width as f32, point.y / self.options.height as f32)),
        );
        let mut parts = self.parts(Some((&before, facts.changed)));
        if !self.options.changes && self.options.show.list() {
            parts.retain(|part| matches!(part, Part::Image(_)));
            if let Some(last) = results.last_mut().filter(|last| !last.is_error) {
                unasked.push(self.screen.list());
                last.parts = vec![Part::Text(unasked.join("\n"))];
            }
        }
        let observation = Observation { results, parts, state: Some(self.screen.state()), shot };
        Ok(Outcome { observation, rule: rule::verdict(&facts), done })
    }

    /// How the agent has ended the episode, if it has.
    pub fn ended(&self) -> Option<Ended> {
        self.ended
    }

    /// What the agent has seen last.
    pub fn screen(&self) -> &Screen {
        &self.screen
    }

    /// See [`World::images`](crate::world::World::images).
    pub fn images(&mut self) -> Vec<(ImageRef, Vec<u8>)> {
        std::mem::take(&mut self.images)
    }

    fn see(&mut self, look: Look) -> Result<(), WorldError> {
        let picture = look.png.map(Picture::new).transpose()?;
        if let Some(Picture { image, png }) = &picture
            && !self.images.iter().any(|(other, _)| other == image)
        {
            self.images.push((image.clone(), png.clone()));
        }
        self.over |= look.over;
        self.screen = Screen::new(look.elements, picture, &self.options);
        Ok(())
    }

    fn shot(&self, point: Option<(f32, f32)>) -> Option<Shot> {
        let picture = self.screen.picture.as_ref()?;
        Some(Shot { image: picture.image.clone(), point })
    }

    fn parts(&self, since: Option<(&Screen, bool)>) -> Vec<Part> {
        let mut lines = Vec::new();
        if let Some((before, changed)) = since {
            lines.push(
                if changed { "The screen has changed." } else { "The screen has not changed." }.to_owned(),
            );
            if self.options.show.list() {
                lines.extend(difference(before, &self.screen));
            }
        }
        if self.options.show.list() {
            lines.push(self.screen.list());
        }
        let words = (!lines.is_empty()).then(|| Part::Text(lines.join("\n")));
        let picture = self.screen.picture.as_ref().filter(|_| self.options.show.screenshot());
        words.into_iter().chain(picture.map(|picture| Part::Image(picture.image.clone()))).collect()
    }
}

/// What tells one call from another.
fn wanted(call: &Call) -> (String, String) {
    (call.name.clone(), serde_json::Value::Object(call.arguments.clone()).to_string())
}

/// What was done, in a few words.
fn told(act: &Act, screen: &Screen) -> String {
    let named = |key: Option<u64>| {
        let element = key.and_then(|key| screen.by_key(key));
        element.map(|element| format!(" {}", element.line())).unwrap_or_default()
    };
    match act {
        Act::Move { to } => format!("moved to {:.0},{:.0}", to.x, to.y),
        Act::Click { at, key, .. } => format!("clicked{} at {:.0},{:.0}", named(*key), at.x, at.y),
        Act::Drag { to } => format!("dragged to {:.0},{:.0}", to.x, to.y),
        Act::Type { into, .. } => {
            format!("typed{}", named(into.map(|(key, _)| key)).replacen(' ', " into ", 1))
        }
        Act::Press { keys } => format!("pressed {}", keys.join("+")),
        Act::Scroll { .. } => "scrolled".to_owned(),
        Act::Wait { .. } => "waited".to_owned(),
    }
}
