//! One page in a browser context of its own: it is opened, looked at, acted on, and closed.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{
    accessibility,
    devtools::{CallError, Line},
    engine::Browser,
    keys::Key,
};
use crate::{
    gui::{Act, Button, Did, Element, Point},
    world::WorldError,
};

/// What pages do at the next moment they have done after so long, whether or not they show it.
const SETTLE: Duration = Duration::from_secs(5);
/// The least and the most time between two looks at a page that goes on loading.
const AGAIN: Duration = Duration::from_millis(20);
/// For the end of a context.
const CLOSE: Duration = Duration::from_secs(10);
/// Texts up to this length are typed key by key.
const TYPED_CHARS: usize = 200;
/// Places between the two ends of a drag.
const DRAG_PLACES: u32 = 4;

/// Two frames later all that an event has caused is there.
const FRAMES: &str = "new Promise(done => { \
     const later = () => setTimeout(done, 0); \
     requestAnimationFrame(() => requestAnimationFrame(later)); \
     setTimeout(done, 300); })";

/// In every document: a caret that blinks would be a change of the screen.
const STILL: &str = "(() => { \
     const sheet = new CSSStyleSheet(); \
     sheet.replaceSync('* { caret-color: transparent !important }'); \
     document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet]; })()";

/// Makes an element ready for a text, and says what it is.
const READY: &str = "function(text) { \
     const fire = () => { for (const name of ['input', 'change']) \
         this.dispatchEvent(new Event(name, {bubbles: true})); }; \
     if (this.disabled || this.readOnly) return 'refused'; \
     if (this instanceof HTMLSelectElement) { \
         const words = text => text.trim().replace(/\\s+/g, ' '); \
         const wanted = words(text); \
         const option = [...this.options].find(option => words(option.label) === wanted) \
             ?? [...this.options].find(option => words(option.label).toLowerCase() === wanted.toLowerCase()); \
         if (!option || option.disabled) return 'no option'; \
         this.focus(); \
         if (this.multiple) option.selected = true; else this.value = option.value, option.selected = true; \
         fire(); \
         return 'done'; } \
     const types = ['date', 'time', 'month', 'week', 'datetime-local', 'range', 'color']; \
     if (this instanceof HTMLInputElement && types.includes(this.type)) { \
         this.focus(); \
         this.value = text; \
         if (text !== '' && this.value === '') return 'no value'; \
         fire(); \
         return 'done'; } \
     const closed = ['button', 'submit', 'reset', 'checkbox', 'radio', 'file', 'image', 'hidden']; \
     if (this instanceof HTMLInputElement && !closed.includes(this.type) || this instanceof HTMLTextAreaElement) { \
         this.focus(); \
         this.select(); \
         return 'type'; } \
     if (this.isContentEditable) { \
         this.focus(); \
         getSelection().selectAllChildren(this); \
         return 'type'; } \
     return 'refused'; }";

/// A page. Closed by [`Page::close`]; its browser closes it, too.
pub(super) struct Page {
    line: Line,
    context: String,
    size: (u32, u32),
    pointer: Point,
    /// Its documents are being fetched.
    loading: bool,
    /// What the page has asked or told in boxes of its own.
    said: Vec<String>,
    /// Last, so that the browser is there while the page is.
    browser: Arc<Browser>,
}

impl Page {
    /// An empty one.
    pub(super) fn open(browser: Arc<Browser>, mut line: Line, size: (u32, u32)) -> Result<Self, WorldError> {
        let made = line.call_browser("Target.createBrowserContext", json!({"disposeOnDetach": true}))?;
        let context = text(&made, "browserContextId")?;
        let mut page = Self {
            line,
            context,
            size,
            pointer: Point::default(),
            loading: false,
            said: Vec::new(),
            browser,
        };
        match page.prepare() {
            Ok(()) => Ok(page),
            Err(error) => {
                page.close();
                Err(error)
            }
        }
    }

    fn prepare(&mut self) -> Result<(), WorldError> {
        let (width, height) = self.size;
        let wanted = json!({
            "url": "about:blank", "browserContextId": self.context, "width": width, "height": height,
        });
        let target = text(&self.line.call_browser("Target.createTarget", wanted)?, "targetId")?;
        let attached =
            self.line.call_browser("Target.attachToTarget", json!({"targetId": target, "flatten": true}))?;
        self.line.attach(text(&attached, "sessionId")?);
        let denied = json!({"behavior": "deny", "browserContextId": self.context});
        self.line.call_browser("Browser.setDownloadBehavior", denied)?;
        // What is seen must be as large as what is pointed at.
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        for (method, params) in [
            ("Page.enable", json!({})),
            ("Accessibility.enable", json!({})),
            ("Emulation.setDeviceMetricsOverride", metrics),
            ("Emulation.setFocusEmulationEnabled", json!({"enabled": true})),
            ("Emulation.setTimezoneOverride", json!({"timezoneId": "UTC"})),
            ("Page.addScriptToEvaluateOnNewDocument", json!({"source": STILL, "worldName": "still"})),
        ] {
            self.line.call(method, params)?;
        }
        Ok(())
    }

    /// Until then everything must have been answered.
    pub(super) fn until(&mut self, deadline: Instant) {
        self.line.until(deadline);
    }

    /// Goes to a URL and waits until it is there.
    pub(super) fn go(&mut self, url: &str) -> Result<(), WorldError> {
        let gone = self.line.call("Page.navigate", json!({"url": url}))?;
        if let Some(why) = gone["errorText"].as_str() {
            return Err(WorldError::Broken(format!("{}: {why}", cut(url))));
        }
        // Loading is over once this document says so: the one before it has said it long ago.
        let loader = gone["loaderId"].as_str().unwrap_or_default().to_owned();
        loop {
            let events = self.events()?;
            let is_there = |(method, params): &(String, Value)| {
                method == "Page.frameNavigated" && params["frame"]["loaderId"].as_str() == Some(&loader)
            };
            if loader.is_empty() || events.iter().any(is_there) {
                return self.settle();
            }
            self.in_time("a page was not there in time")?;
            self.line.wait(AGAIN)?;
        }
    }

    /// Waits until the page has done what it does now. One that never ends loading is taken as it is.
    pub(super) fn settle(&mut self) -> Result<(), WorldError> {
        let until = Instant::now() + SETTLE;
        loop {
            let waits = json!({"expression": FRAMES, "awaitPromise": true});
            match self.line.call("Runtime.evaluate", waits) {
                // Where another document comes meanwhile, that one is waited for.
                Ok(_) | Err(CallError::Said(_)) => {}
                Err(CallError::World(error)) => return Err(error),
            }
            self.events()?;
            if !self.loading || Instant::now() >= until {
                return Ok(());
            }
            self.line.wait(AGAIN)?;
        }
    }

    /// What has happened, as far as it concerns the page as a whole.
    fn events(&mut self) -> Result<Vec<(String, Value)>, WorldError> {
        let events = self.line.events()?;
        for (method, params) in &events {
            match method.as_str() {
                "Page.frameStartedLoading" => self.loading = true,
                "Page.frameStoppedLoading" => self.loading = false,
                "Page.javascriptDialogOpening" => {
                    self.said.push(format!("{:?}", cut(params["message"].as_str().unwrap_or_default())));
                }
                _ => {}
            }
        }
        Ok(events)
    }

    fn in_time(&self, why: &str) -> Result<(), WorldError> {
        let over = Instant::now() >= self.line.deadline();
        if over { Err(WorldError::Broken(why.to_owned())) } else { Ok(()) }
    }

    /// The value of an expression of JavaScript in the page; what it throws is an error that says so.
    pub(super) fn value(&mut self, expression: &str) -> Result<Value, CallError> {
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let mut answer = self.line.call("Runtime.evaluate", asked)?;
        if let Some(thrown) = answer.get("exceptionDetails") {
            let why = thrown["exception"]["description"].as_str().or(thrown["text"].as_str());
            return Err(CallError::Said(cut(why.unwrap_or("it throws"))));
        }
        Ok(answer["result"]["value"].take())
    }

    /// What can be told apart on it.
    pub(super) fn elements(&mut self) -> Result<Vec<Element>, WorldError> {
        let tree = self.line.call("Accessibility.getFullAXTree", json!({}))?;
        let layout = self.line.call("DOMSnapshot.captureSnapshot", json!({"computedStyles": []}))?;
        Ok(accessibility::elements(&tree, &layout))
    }

    /// As a PNG.
    pub(super) fn screenshot(&mut self) -> Result<Vec<u8>, WorldError> {
        let shot = self.line.call("Page.captureScreenshot", json!({"format": "png"}))?;
        let png = BASE64_STANDARD.decode(text(&shot, "data")?);
        png.map_err(|error| WorldError::Broken(format!("a screenshot is no base64: {error}")))
    }

    /// Does one thing.
    pub(super) fn act(&mut self, act: &Act) -> Result<Did, WorldError> {
        match act {
            Act::Move { to } => self.mouse("mouseMoved", *to, json!({}))?,
            Act::Click { at, button, count, .. } => self.click(*at, *button, *count)?,
            Act::Drag { to } => self.drag(*to)?,
            Act::Type { text, into: None } => self.write(text)?,
            Act::Type { text, into: Some((key, _)) } => return self.fill(*key, text),
            Act::Press { keys } => return self.press(keys),
            Act::Scroll { at, right, down } => {
                let at = at.unwrap_or(self.pointer);
                self.mouse("mouseWheel", at, json!({"deltaX": right, "deltaY": down}))?;
            }
            Act::Wait { secs } => self.line.wait(Duration::from_secs_f32(secs.clamp(0.0, 10.0)))?,
        }
        Ok(Did::Done)
    }

    /// What the page has said in boxes of its own since this was asked last; they were answered with yes.
    pub(super) fn said(&mut self) -> Vec<String> {
        std::mem::take(&mut self.said)
    }

    fn mouse(&mut self, what: &str, at: Point, more: Value) -> Result<(), WorldError> {
        let mut event = more;
        event["type"] = what.into();
        (event["x"], event["y"]) = (at.x.into(), at.y.into());
        self.line.call("Input.dispatchMouseEvent", event)?;
        self.pointer = at;
        Ok(())
    }

    fn click(&mut self, at: Point, button: Button, count: u8) -> Result<(), WorldError> {
        let name = match button {
            Button::Left => "left",
            Button::Right => "right",
            Button::Middle => "middle",
        };
        self.mouse("mouseMoved", at, json!({}))?;
        for number in 1..=count {
            for what in ["mousePressed", "mouseReleased"] {
                self.mouse(what, at, json!({"button": name, "clickCount": number}))?;
            }
        }
        Ok(())
    }

    fn drag(&mut self, to: Point) -> Result<(), WorldError> {
        let from = self.pointer;
        self.mouse("mousePressed", from, json!({"button": "left", "clickCount": 1}))?;
        for number in 1..=DRAG_PLACES {
            let share = number as f32 / DRAG_PLACES as f32;
            let at = Point { x: from.x + (to.x - from.x) * share, y: from.y + (to.y - from.y) * share };
            self.mouse("mouseMoved", at, json!({"button": "left", "buttons": 1}))?;
        }
        self.mouse("mouseReleased", to, json!({"button": "left", "clickCount": 1}))
    }

    /// Types wherever the keyboard is.
    fn write(&mut self, text: &str) -> Result<(), WorldError> {
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        if text.chars().count() <= TYPED_CHARS {
            return text.chars().try_for_each(|char| self.stroke(&[Key::of(char)]));
        }
        for (number, line) in text.split('\n').enumerate() {
            if number > 0 {
                self.stroke(&[Key::of('\n')])?;
            }
            self.line.call("Input.insertText", json!({"text": line}))?;
        }
        Ok(())
    }

    /// Puts a text into an element, in place of what is in it.
    fn fill(&mut self, key: u64, text: &str) -> Result<Did, WorldError> {
        let refused = |why: &str| Ok(Did::Refused(why.to_owned()));
        let resolved = match self.line.call("DOM.resolveNode", json!({"backendNodeId": key})) {
            Ok(resolved) => resolved,
            Err(CallError::Said(_)) => return refused("That is not on the page any more."),
            Err(CallError::World(error)) => return Err(error),
        };
        let object = &resolved["object"]["objectId"];
        let called = json!({
            "objectId": object, "functionDeclaration": READY, "returnByValue": true,
            "arguments": [{"value": text}], "userGesture": true,
        });
        let answer = match self.line.call("Runtime.callFunctionOn", called) {
            Ok(answer) => answer,
            Err(CallError::Said(_)) => return refused("No text can be put there."),
            Err(CallError::World(error)) => return Err(error),
        };
        match answer["result"]["value"].as_str() {
            Some("done") => Ok(Did::Done),
            Some("type") => {
                if text.is_empty() {
                    self.stroke(&[Key::named("delete").expect("it is among the named")])?;
                }
                self.write(text)?;
                Ok(Did::Done)
            }
            Some("no option") => refused("There is no such option."),
            Some("no value") => refused("That is no value for this field."),
            _ => refused("No text can be put there."),
        }
    }

    fn press(&mut self, names: &[String]) -> Result<Did, WorldError> {
        let mut keys = Vec::new();
        for name in names {
            match Key::named(name) {
                Some(key) => keys.push(key),
                None => return Ok(Did::Refused(format!("There is no key {}.", cut(name)))),
            }
        }
        self.stroke(&keys)?;
        Ok(Did::Done)
    }

    /// Keys go down in this order and up in the other.
    fn stroke(&mut self, keys: &[Key]) -> Result<(), WorldError> {
        let mut held = 0;
        for key in keys {
            held |= key.modifier();
            self.line.call("Input.dispatchKeyEvent", key.down(held))?;
        }
        for key in keys.iter().rev() {
            held &= !key.modifier();
            self.line.call("Input.dispatchKeyEvent", key.up(held))?;
        }
        Ok(())
    }

    /// Closes it with all that it has kept. A browser that does not do so in time is not used any more.
    pub(super) fn close(mut self) {
        if self.line.is_gone() {
            self.browser.retire();
            return;
        }
        // Its own line may have been interrupted.
        let mut line = self.browser.line(&crate::stop::Stop::new(), Instant::now() + CLOSE);
        let context = std::mem::take(&mut self.context);
        let closed = line.call_browser("Target.disposeBrowserContext", json!({"browserContextId": context}));
        if let Err(error) = closed {
            tracing::warn!(error = %WorldError::from(error), "a page was not closed, its browser ends");
            self.browser.retire();
        }
    }
}

fn text(answer: &Value, key: &str) -> Result<String, WorldError> {
    let text = answer[key].as_str().map(str::to_owned);
    text.ok_or_else(|| WorldError::Broken(format!("the browser has not said its {key}")))
}

/// Not too much of a text that is not ours.
fn cut(text: &str) -> String {
    crate::shown::cut(text, 300)
}
