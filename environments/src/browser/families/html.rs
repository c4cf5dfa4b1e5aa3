//! The page of a task, in a looks that is drawn, too.

use super::{Control, What, kinds::Made};
use crate::draw::Draw;

const FONTS: &[&str] = &["sans-serif", "serif", "monospace"];
const COLOURS: &[&str] = &["#1f4e79", "#7a1f3d", "#2e5d34", "#5b3a8c", "#404040"];
const GROUNDS: &[&str] = &["#ffffff", "#f4f1ea", "#eef3f8", "#f2f7ee"];

/// What a page does: it writes down which buttons were clicked.
const SCRIPT: &str = "const clicked = []; \
     document.addEventListener('click', event => { \
         const button = event.target.closest('[data-button]'); \
         if (!button) return; \
         clicked.push(Number(button.dataset.button)); \
         document.getElementById('said').textContent = 'Clicked: ' + button.textContent; });";

/// Names are of letters alone: nothing in them has to be escaped.
pub(super) fn page(draw: &mut Draw, made: &Made) -> String {
    let style = style(draw);
    let controls: String =
        made.controls.iter().enumerate().map(|(number, control)| self::control(number, control)).collect();
    let button = |(number, name): (usize, &String)| {
        format!("<button type=\"button\" data-button=\"{number}\">{name}</button>\n")
    };
    let buttons: String = made.buttons.iter().enumerate().map(button).collect();
    let title = draw.name();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\n<style>{style}</style></head>\n\
         <body>\n<h1>{title}</h1>\n<div id=\"controls\">\n{controls}</div>\n<div id=\"buttons\">\n{buttons}</div>\n\
         <p id=\"said\"></p>\n<script>{SCRIPT}</script>\n</body></html>\n"
    )
}

fn control(number: usize, control: &Control) -> String {
    let Control { label, what, start, .. } = control;
    match what {
        What::Field => {
            format!("<label>{label} <input type=\"text\" data-control=\"{number}\" value=\"{start}\"></label>\n")
        }
        What::Box => format!("<label><input type=\"checkbox\" data-control=\"{number}\"> {label}</label>\n"),
        What::List(options) => {
            let options: String = options.iter().map(|option| format!("<option>{option}</option>")).collect();
            format!("<label>{label} <select data-control=\"{number}\">{options}</select></label>\n")
        }
        What::Radio(options) => options
            .iter()
            .map(|option| {
                format!(
                    "<label><input type=\"radio\" name=\"r{number}\" value=\"{option}\" data-control=\"{number}\"> {option}</label>\n"
                )
            })
            .collect(),
    }
}

fn style(draw: &mut Draw) -> String {
    let dice = &mut draw.dice;
    let (font, colour, ground) = (dice.pick(FONTS), dice.pick(COLOURS), dice.pick(GROUNDS));
    let (size, gap, left) = (dice.between(12, 15), dice.between(2, 8), dice.between(4, 60));
    let flow = if dice.chance(0.5) { "row" } else { "column" };
    format!(
        "body {{ font: {size}px {font}; color: {colour}; background: {ground}; margin: 6px {left}px }} \
         h1 {{ font-size: 1.2em; margin: 4px 0 }} p {{ margin: 4px 0; min-height: 1.2em }} \
         #controls {{ display: flex; flex-direction: column; align-items: start; gap: {gap}px }} \
         #buttons {{ display: flex; flex-flow: {flow} wrap; align-items: start; gap: {gap}px; margin-top: 8px }} \
         input, select, button {{ font: inherit; max-width: 14em }}"
    )
}
