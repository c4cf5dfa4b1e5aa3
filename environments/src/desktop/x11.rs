//! The X server of a desktop: its screen, its pointer, its keyboard and its windows, over its socket.

use std::{collections::BTreeMap, os::unix::net::UnixStream, sync::Arc, time::Instant};

use x11rb::{
    connection::{Connection, RequestConnection},
    protocol::{
        xproto::{
            Atom, AtomEnum, BUTTON_PRESS_EVENT, BUTTON_RELEASE_EVENT, ClientMessageEvent, ConnectionExt as _,
            EventMask, ImageFormat, KEY_PRESS_EVENT, KEY_RELEASE_EVENT, MOTION_NOTIFY_EVENT, Window,
        },
        xtest::ConnectionExt as _,
    },
    rust_connection::RustConnection,
};

use super::{keys, wire::Wire};
use crate::{gui::Point, stop::Stop, world::WorldError};

/// The most windows that are looked at.
const WINDOWS: usize = 64;
/// The most of a window's title that is read, in units of 4 bytes.
const TITLE_WORDS: u32 = 256;

/// A connection.
pub(super) struct X11 {
    connection: RustConnection<Wire>,
    stop: Arc<Stop>,
    root: Window,
    size: (u16, u16),
    atoms: Atoms,
    /// The code of a key and whether shift is held, by keysym.
    codes: BTreeMap<u32, (u8, bool)>,
    /// Codes of keys that mean nothing yet.
    spare: Vec<u8>,
}

/// A window of a program, as the window manager has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Client {
    window: Window,
    /// What is in its title bar.
    pub(super) title: String,
    /// The program, as it calls itself.
    pub(super) class: String,
    /// Left, top, width and height, with what the window manager has around it.
    pub(super) frame: (i32, i32, i32, i32),
}

struct Atoms {
    stacking: Atom,
    active: Atom,
    close: Atom,
    name: Atom,
    utf8: Atom,
    extents: Atom,
    check: Atom,
}

impl X11 {
    /// Over a stream to a server that has a screen.
    pub(super) fn connect(
        stream: UnixStream,
        stop: Arc<Stop>,
        deadline: Instant,
    ) -> Result<Self, WorldError> {
        let broken = |error: &dyn std::fmt::Display| WorldError::Broken(format!("the x server: {error}"));
        let wire = Wire::new(stream, stop.clone(), deadline).map_err(|error| broken(&error))?;
        let connection = RustConnection::connect_to_stream(wire, 0).map_err(|error| broken(&error))?;
        connection.stream().frame();
        let screen = &connection.setup().roots[0];
        let (root, size) = (screen.root, (screen.width_in_pixels, screen.height_in_pixels));
        if screen.root_depth != 24 {
            return Err(broken(&"its screen has not 24 bits a pixel"));
        }
        let atoms = Atoms { stacking: 0, active: 0, close: 0, name: 0, utf8: 0, extents: 0, check: 0 };
        let mut x11 = Self { connection, stop, root, size, atoms, codes: BTreeMap::new(), spare: Vec::new() };
        x11.learn().map_err(|fault| x11.fault(fault))?;
        Ok(x11)
    }

    /// Until then what is asked has to be answered.
    pub(super) fn until(&self, deadline: Instant) {
        self.connection.stream().until(deadline);
    }

    /// The screen: four bytes a pixel, blue first, row by row from the top.
    pub(super) fn grab(&self) -> Result<Vec<u8>, WorldError> {
        self.of(|x11| {
            let (width, height) = x11.size;
            let every = u32::MAX;
            let image =
                x11.connection.get_image(ImageFormat::Z_PIXMAP, x11.root, 0, 0, width, height, every)?;
            Ok(image.reply()?.data)
        })
    }

    /// Its width and its height, in pixels.
    pub(super) fn size(&self) -> (u16, u16) {
        self.size
    }

    /// The pointer goes there.
    pub(super) fn point(&self, at: Point) -> Result<(), WorldError> {
        let clamp =
            |at: f32, size: u16| (at.max(0.0) as i16).min(i16::try_from(size - 1).unwrap_or(i16::MAX));
        let (x, y) = (clamp(at.x, self.size.0), clamp(at.y, self.size.1));
        self.of(|x11| x11.fake(MOTION_NOTIFY_EVENT, 0, (x, y)))
    }

    /// A button of the pointer is pressed, or is let go.
    pub(super) fn button(&self, button: u8, down: bool) -> Result<(), WorldError> {
        let kind = if down { BUTTON_PRESS_EVENT } else { BUTTON_RELEASE_EVENT };
        self.of(|x11| x11.fake(kind, button, (0, 0)))
    }

    /// Keys are pressed in this order and let go in the other.
    pub(super) fn chord(&mut self, keysyms: &[u32]) -> Result<bool, WorldError> {
        let Some(codes) = self.codes_of(keysyms)? else { return Ok(false) };
        let mut held: Vec<u8> = Vec::new();
        for (code, shift) in codes {
            let shift = shift.then(|| self.codes.get(&keys::SHIFT)).flatten().map(|(code, _)| *code);
            held.extend(
                shift.into_iter().chain([code]).filter(|code| !held.contains(code)).collect::<Vec<_>>(),
            );
        }
        for code in &held {
            self.key(*code, true)?;
        }
        for code in held.iter().rev() {
            self.key(*code, false)?;
        }
        Ok(true)
    }

    /// A text is typed; false, and nothing typed, where it has more than the keyboard can be made to have.
    pub(super) fn write(&mut self, text: &str) -> Result<bool, WorldError> {
        let keysyms: Option<Vec<u32>> = text.chars().map(keys::of_char).collect();
        let Some(codes) = keysyms.map(|keysyms| self.codes_of(&keysyms)).transpose()?.flatten() else {
            return Ok(false);
        };
        let shift_code = self.codes.get(&keys::SHIFT).map(|(code, _)| *code);
        for (code, shift) in codes {
            let shift = shift.then_some(shift_code).flatten();
            shift.map_or(Ok(()), |shift| self.key(shift, true))?;
            self.key(code, true)?;
            self.key(code, false)?;
            shift.map_or(Ok(()), |shift| self.key(shift, false))?;
        }
        Ok(true)
    }

    /// Everything before has reached the programs' sockets.
    pub(super) fn sync(&self) -> Result<(), WorldError> {
        self.of(|x11| {
            x11.connection.get_input_focus()?.reply()?;
            Ok(())
        })
    }

    /// Whether a window manager answers for the screen.
    pub(super) fn is_managed(&self) -> Result<bool, WorldError> {
        self.of(|x11| {
            let Some(&window) = x11.windows_in(x11.atoms.check)?.first() else { return Ok(false) };
            // What it has said of itself stays; its window goes with it.
            let geometry = x11.connection.get_geometry(window)?;
            Ok(geometry.reply_unchecked()?.is_some())
        })
    }

    /// The windows of programs, the uppermost last.
    pub(super) fn clients(&self) -> Result<Vec<Client>, WorldError> {
        self.of(|x11| {
            let windows = x11.windows_in(x11.atoms.stacking)?;
            // One that goes meanwhile has no answer.
            windows.into_iter().filter_map(|window| x11.client(window).transpose()).collect()
        })
    }

    /// A window comes to the front and has the keyboard.
    pub(super) fn activate(&self, client: &Client) -> Result<(), WorldError> {
        self.tell(client, self.atoms.active, [2, 0, 0, 0, 0])
    }

    /// Whether the keyboard is a window's.
    pub(super) fn has_keyboard(&self, client: &Client) -> Result<bool, WorldError> {
        self.of(|x11| Ok(x11.windows_in(x11.atoms.active)? == [client.window]))
    }

    /// A window is asked to close, as by its title bar.
    pub(super) fn close(&self, client: &Client) -> Result<(), WorldError> {
        self.tell(client, self.atoms.close, [0, 2, 0, 0, 0])
    }

    fn tell(&self, client: &Client, what: Atom, words: [u32; 5]) -> Result<(), WorldError> {
        self.of(|x11| {
            let event = ClientMessageEvent::new(32, client.window, what, words);
            let mask = EventMask::SUBSTRUCTURE_NOTIFY | EventMask::SUBSTRUCTURE_REDIRECT;
            x11.connection.send_event(false, x11.root, mask, event)?.check()?;
            Ok(())
        })
    }

    fn key(&self, code: u8, down: bool) -> Result<(), WorldError> {
        let kind = if down { KEY_PRESS_EVENT } else { KEY_RELEASE_EVENT };
        self.of(|x11| x11.fake(kind, code, (0, 0)))
    }

    fn fake(&self, kind: u8, detail: u8, (x, y): (i16, i16)) -> Result<(), Fault> {
        self.connection.xtest_fake_input(kind, detail, 0, self.root, x, y, 0)?;
        self.connection.flush()?;
        Ok(())
    }

    /// What has to be known before anything is done.
    fn learn(&mut self) -> Result<(), Fault> {
        let atom = |name: &str| -> Result<Atom, Fault> {
            Ok(self.connection.intern_atom(false, name.as_bytes())?.reply()?.atom)
        };
        self.atoms = Atoms {
            stacking: atom("_NET_CLIENT_LIST_STACKING")?,
            active: atom("_NET_ACTIVE_WINDOW")?,
            close: atom("_NET_CLOSE_WINDOW")?,
            name: atom("_NET_WM_NAME")?,
            utf8: atom("UTF8_STRING")?,
            extents: atom("_NET_FRAME_EXTENTS")?,
            check: atom("_NET_SUPPORTING_WM_CHECK")?,
        };
        if self.connection.extension_information(x11rb::protocol::xtest::X11_EXTENSION_NAME)?.is_none() {
            return Err(Fault("it has no XTEST".to_owned()));
        }
        let (first, last) = (self.connection.setup().min_keycode, self.connection.setup().max_keycode);
        let mapping = self.connection.get_keyboard_mapping(first, last - first + 1)?.reply()?;
        let each = usize::from(mapping.keysyms_per_keycode).max(1);
        for (code, keysyms) in (first..=last).zip(mapping.keysyms.chunks(each)) {
            if keysyms.iter().all(|keysym| *keysym == 0) {
                self.spare.push(code);
            }
            for (keysym, shift) in keysyms.iter().zip([false, true]).filter(|(keysym, _)| **keysym != 0) {
                self.codes.entry(*keysym).or_insert((code, shift));
            }
        }
        Ok(())
    }

    /// Keys for keysyms. One that the keyboard lacks is given a key that means nothing; none where these are used up.
    fn codes_of(&mut self, keysyms: &[u32]) -> Result<Option<Vec<(u8, bool)>>, WorldError> {
        let mut lacking: Vec<u32> =
            keysyms.iter().copied().filter(|keysym| !self.codes.contains_key(keysym)).collect();
        lacking.sort_unstable();
        lacking.dedup();
        if lacking.len() > self.spare.len() {
            return Ok(None);
        }
        for keysym in lacking {
            let code = self.spare.pop().expect("there are enough of them");
            self.of(|x11| {
                x11.connection.change_keyboard_mapping(1, code, 2, &[keysym, keysym])?.check()?;
                Ok(())
            })?;
            self.codes.insert(keysym, (code, false));
        }
        Ok(keysyms.iter().map(|keysym| self.codes.get(keysym).copied()).collect())
    }

    fn windows_in(&self, list: Atom) -> Result<Vec<Window>, Fault> {
        let count = u32::try_from(WINDOWS).unwrap_or(u32::MAX);
        let property =
            self.connection.get_property(false, self.root, list, AtomEnum::WINDOW, 0, count)?.reply()?;
        Ok(property.value32().map(Iterator::collect).unwrap_or_default())
    }

    /// None where it has gone.
    fn client(&self, window: Window) -> Result<Option<Client>, Fault> {
        let c = &self.connection;
        let title = c.get_property(false, window, self.atoms.name, self.atoms.utf8, 0, TITLE_WORDS)?;
        let class = c.get_property(false, window, AtomEnum::WM_CLASS, AtomEnum::STRING, 0, TITLE_WORDS)?;
        let extents = c.get_property(false, window, self.atoms.extents, AtomEnum::CARDINAL, 0, 4)?;
        let geometry = c.get_geometry(window)?;
        let at = c.translate_coordinates(window, self.root, 0, 0)?;
        // An answer that is an error says that it has gone; no answer is the server's end.
        let (title, class, extents) =
            (title.reply_unchecked()?, class.reply_unchecked()?, extents.reply_unchecked()?);
        let (geometry, at) = (geometry.reply_unchecked()?, at.reply_unchecked()?);
        let (Some(title), Some(class), Some(geometry), Some(at)) = (title, class, geometry, at) else {
            return Ok(None);
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let around: Vec<i32> = extents
            .and_then(|extents| Some(extents.value32()?.map(|wide| wide.min(1000) as i32).collect()))
            .unwrap_or_default();
        let &[left, right, top, bottom] = around.as_slice() else {
            let frame = (at.dst_x.into(), at.dst_y.into(), geometry.width.into(), geometry.height.into());
            return Ok(Some(Client { window, title: text(&title.value), class: text(&class.value), frame }));
        };
        let frame = (
            i32::from(at.dst_x) - left,
            i32::from(at.dst_y) - top,
            i32::from(geometry.width) + left + right,
            i32::from(geometry.height) + top + bottom,
        );
        Ok(Some(Client { window, title: text(&title.value), class: text(&class.value), frame }))
    }

    fn of<T>(&self, ask: impl FnOnce(&Self) -> Result<T, Fault>) -> Result<T, WorldError> {
        ask(self).map_err(|fault| self.fault(fault))
    }

    fn fault(&self, Fault(why): Fault) -> WorldError {
        if self.stop.is_wanted() {
            WorldError::Interrupted
        } else {
            WorldError::Broken(format!("the x server: {why}"))
        }
    }
}

/// What a server did not do, in its words.
struct Fault(String);

impl<E: std::error::Error> From<E> for Fault {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}
