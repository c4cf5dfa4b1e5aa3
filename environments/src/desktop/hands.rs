//! What an agent sees of a desktop and does on it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::{
    keys, look,
    machine::Desktop,
    osworld::{Deed, Script},
    x11::Client,
};
use crate::{
    gui::{Act, Button, Did, Display, Element, Look, Point},
    world::WorldError,
};

/// How long a screen may take to come to rest; one that never does is seen as it is.
const SETTLES: Duration = Duration::from_secs(5);
/// Between two looks at a screen that may be changing.
const BETWEEN: Duration = Duration::from_millis(60);
/// So many looks in a row are alike where a screen rests.
const ALIKE: usize = 3;
/// How long a window may take to have the keyboard once it was clicked.
const FOCUS: Duration = Duration::from_secs(2);
/// Pixels that one click of the wheel goes, and the most clicks.
const WHEEL: (f32, usize) = (50.0, 60);
/// Steps of a drag.
const DRAG_STEPS: u8 = 10;

/// A desktop with an agent at it.
pub(super) struct Hands<'a> {
    pub(super) desktop: &'a mut Desktop,
    /// What the elements of the last look are.
    pub(super) roles: &'a mut HashMap<u64, String>,
    /// Where the pointer is.
    pub(super) pointer: &'a mut Point,
}

impl Display for Hands<'_> {
    fn look(&mut self) -> Result<Look, WorldError> {
        let deadline = self.desktop.begin_step();
        if !self.desktop.x11.is_managed()? {
            return Err(WorldError::Broken("the window manager has ended".to_owned()));
        }
        let end = deadline.min(Instant::now() + SETTLES);
        let mut before: Option<(Vec<Element>, Vec<u8>)> = None;
        let mut alike = 1;
        let (elements, pixels) = loop {
            let seen = self.see()?;
            let rests = before.as_ref() == Some(&seen) && !is_bare(&seen.0);
            alike = if rests { alike + 1 } else { 1 };
            if alike >= ALIKE || Instant::now() >= end {
                break seen;
            }
            before = Some(seen);
            self.desktop.pause(BETWEEN)?;
        };
        *self.roles = elements.iter().map(|element| (element.key, element.role.clone())).collect();
        let png = Some(png(&pixels, self.desktop.x11.size())?);
        Ok(Look { elements, png, ..Look::default() })
    }

    fn act(&mut self, act: &Act) -> Result<Did, WorldError> {
        self.desktop.begin_step();
        let refused = |why: &str| Ok(Did::Refused(why.to_owned()));
        match act {
            Act::Move { to } => self.go(*to)?,
            Act::Click { at, button, count, .. } => {
                let button = match button {
                    Button::Left => 1,
                    Button::Middle => 2,
                    Button::Right => 3,
                };
                self.click(*at, button, *count)?;
            }
            Act::Drag { to } => self.drag(*to)?,
            Act::Type { text, into } => {
                if let Some((key, at)) = into {
                    self.click(*at, 1, 1)?;
                    self.focus(*at)?;
                    self.focused(*key)?;
                    // In a terminal there is nothing that could be replaced.
                    if self.roles.get(key).is_none_or(|role| role != "terminal") {
                        self.desktop.x11.chord(&[keys::CONTROL, u32::from('a')])?;
                        if text.is_empty() {
                            self.desktop.x11.chord(&[keys::DELETE])?;
                        }
                    }
                }
                if !self.desktop.x11.write(text)? {
                    return refused("The text has characters that no key can be found for.");
                }
            }
            Act::Press { keys } => {
                let keysyms: Result<Vec<u32>, &String> =
                    keys.iter().map(|key| keys::of_name(key).ok_or(key)).collect();
                match keysyms {
                    Ok(keysyms) if self.desktop.x11.chord(&keysyms)? => {}
                    Ok(_) => return refused("No key can be found for it."),
                    Err(key) => return Ok(Did::Refused(format!("There is no key {key}."))),
                }
            }
            Act::Scroll { at, right, down } => {
                if let Some(at) = at {
                    self.go(*at)?;
                }
                self.wheel(*down, 4, 5)?;
                self.wheel(*right, 6, 7)?;
            }
            Act::Wait { secs } => self.desktop.pause(Duration::from_secs_f32(secs.clamp(0.0, 10.0)))?,
        }
        self.desktop.x11.sync()?;
        Ok(Did::Done)
    }
}

/// Whether windows show nothing but their frames and menus: what is in them comes later.
fn is_bare(elements: &[Element]) -> bool {
    let frame = |role: &str| matches!(role, "window" | "dialog" | "menu" | "menuitem");
    !elements.is_empty() && elements.iter().all(|element| frame(&element.role))
}

impl Hands<'_> {
    /// Whatever a task has its desktop prepared with.
    pub(super) fn play(&mut self, script: &Script) -> Result<(), WorldError> {
        let invalid = |what: &str| WorldError::Invalid(format!("a script of the task: {what}"));
        for deed in &script.0 {
            match deed {
                Deed::Move(x, y) => self.go(Point { x: *x, y: *y })?,
                Deed::Click { at, button, count } => {
                    let at = at.map_or(*self.pointer, |(x, y)| Point { x, y });
                    self.click(at, *button, *count)?;
                }
                Deed::Write(text) => {
                    if !self.desktop.x11.write(text)? {
                        return Err(invalid("a text that cannot be typed"));
                    }
                }
                Deed::Hotkey(keys) => {
                    let keysyms: Option<Vec<u32>> = keys.iter().map(|key| keys::of_name(key)).collect();
                    let keysyms = keysyms.ok_or_else(|| invalid("a key that there is not"))?;
                    self.desktop.x11.chord(&keysyms)?;
                }
                Deed::Scroll(clicks) => {
                    let down = -(*clicks as f32) * WHEEL.0;
                    self.wheel(down, 4, 5)?;
                }
                Deed::Sleep(seconds) => self.desktop.pause(Duration::from_secs_f64(*seconds))?,
            }
            self.desktop.x11.sync()?;
        }
        Ok(())
    }

    /// The window that a point is in, the uppermost of them.
    pub(super) fn client_at(&self, at: Point) -> Result<Option<Client>, WorldError> {
        let (x, y) = (at.x as i32, at.y as i32);
        Ok(self.desktop.x11.clients()?.into_iter().rev().find(|client| look::holds(client.frame, x, y)))
    }

    /// What programs say there is, and the screen.
    fn see(&self) -> Result<(Vec<Element>, Vec<u8>), WorldError> {
        Ok((self.elements()?, self.desktop.x11.grab()?))
    }

    fn elements(&self) -> Result<Vec<Element>, WorldError> {
        let nodes = self.desktop.bus.tree()?;
        let frames: Vec<_> = self.desktop.x11.clients()?.into_iter().map(|client| client.frame).collect();
        Ok(look::elements(&nodes, &frames))
    }

    /// The pointer goes there.
    pub(super) fn go(&mut self, to: Point) -> Result<(), WorldError> {
        *self.pointer = to;
        self.desktop.x11.point(to)
    }

    fn click(&mut self, at: Point, button: u8, count: u8) -> Result<(), WorldError> {
        self.go(at)?;
        for _ in 0..count {
            self.desktop.x11.button(button, true)?;
            self.desktop.x11.button(button, false)?;
        }
        self.desktop.x11.sync()
    }

    /// The keyboard follows a click by way of the window manager, which takes its time.
    fn focus(&mut self, at: Point) -> Result<(), WorldError> {
        let Some(client) = self.client_at(at)? else { return Ok(()) };
        let end = Instant::now() + FOCUS;
        self.desktop.wait("the keyboard", || {
            let has = self.desktop.x11.has_keyboard(&client)? || Instant::now() > end;
            Ok(has.then_some(()))
        })
    }

    /// The window manager holds a click back until it has looked, and keys would overtake it: they wait until the program says
    /// that the element has the keyboard.
    fn focused(&mut self, key: u64) -> Result<(), WorldError> {
        let end = Instant::now() + FOCUS;
        loop {
            let elements = self.elements()?;
            let element = elements.iter().find(|element| element.key == key);
            let has = element.is_none_or(|element| element.states.iter().any(|state| state == "focused"));
            if has || Instant::now() >= end {
                return Ok(());
            }
            self.desktop.pause(BETWEEN)?;
        }
    }

    fn drag(&mut self, to: Point) -> Result<(), WorldError> {
        let from = *self.pointer;
        self.desktop.x11.button(1, true)?;
        for step in 1..=DRAG_STEPS {
            let share = f32::from(step) / f32::from(DRAG_STEPS);
            let at = Point { x: from.x + (to.x - from.x) * share, y: from.y + (to.y - from.y) * share };
            self.go(at)?;
            self.desktop.x11.sync()?;
        }
        self.desktop.x11.button(1, false)
    }

    fn wheel(&mut self, pixels: f32, less: u8, more: u8) -> Result<(), WorldError> {
        let clicks = ((pixels.abs() / WHEEL.0).round() as usize).min(WHEEL.1);
        let button = if pixels < 0.0 { less } else { more };
        for _ in 0..clicks {
            self.desktop.x11.button(button, true)?;
            self.desktop.x11.button(button, false)?;
        }
        Ok(())
    }
}

/// Of four bytes a pixel, blue first.
fn png(pixels: &[u8], (width, height): (u16, u16)) -> Result<Vec<u8>, WorldError> {
    let broken = |error: png::EncodingError| WorldError::Broken(format!("a screenshot: {error}"));
    let rgb: Vec<u8> = pixels.chunks_exact(4).flat_map(|pixel| [pixel[2], pixel[1], pixel[0]]).collect();
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width.into(), height.into());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header().map_err(broken)?;
    writer.write_image_data(&rgb).map_err(broken)?;
    writer.finish().map_err(broken)?;
    Ok(bytes)
}
