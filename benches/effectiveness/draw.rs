//! Draws plots as SVG, in colours that are readable on light and dark pages.

use std::{error::Error, fs, ops::Range, path::Path};

use plotters::{
    chart::{ChartBuilder, LabelAreaPosition, SeriesLabelPosition},
    drawing::IntoDrawingArea,
    element::{Circle, PathElement, Rectangle, Text},
    style::{Color, IntoFont, RGBAColor, RGBColor, ShapeStyle, TRANSPARENT, TextStyle},
};

use crate::harness::plot::{Axis, Mark, Plot, Scale};

const SIZE: (u32, u32) = (880, 480);
/// Of text and axes.
const GREY: RGBColor = RGBColor(125, 133, 144);
/// Bright enough for a dark page and dark enough for a light one.
const COLOURS: [RGBColor; 7] = [
    RGBColor(47, 129, 247),
    RGBColor(219, 109, 40),
    RGBColor(26, 150, 80),
    RGBColor(190, 75, 170),
    RGBColor(188, 140, 30),
    RGBColor(20, 150, 160),
    GREY,
];

/// Where a point is, on axes that may be logarithmic.
type Place = (f64, f64);

/// Writes the plot into `folder`.
pub(crate) fn draw(plot: &Plot, folder: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(folder)?;
    let path = folder.join(plot.file).with_extension("svg");
    let area = plotters::backend::SVGBackend::new(&path, SIZE).into_drawing_area();
    let (x, y) = (plot.x.shown(), plot.y.shown());
    let text = |size: i32| ("sans-serif", size).into_font().color(&GREY);
    let mut chart = ChartBuilder::on(&area)
        .margin(16)
        .margin_right(32)
        .caption(plot.title, text(20))
        .set_label_area_size(LabelAreaPosition::Left, 68)
        .set_label_area_size(LabelAreaPosition::Bottom, 48)
        .build_cartesian_2d(x.clone(), y.clone())?;
    chart
        .configure_mesh()
        .axis_style(GREY)
        .bold_line_style(GREY.mix(0.25))
        .light_line_style(TRANSPARENT)
        .x_desc(plot.x.name)
        .y_desc(plot.y.name)
        .x_labels(plot.x.ticks())
        .y_labels(plot.y.ticks())
        .x_label_formatter(&|place| plot.x.label(*place))
        .y_label_formatter(&|place| plot.y.label(*place))
        .label_style(text(14))
        .axis_desc_style(text(15))
        .draw()?;

    // The legend is in the upper right.
    let is_under_legend = |at: f64| at > x.start + 0.65 * (x.end - x.start);
    for (span, what) in &plot.spans {
        let (from, to) = (plot.x.place(span.start), plot.x.place(span.end));
        chart.draw_series([Rectangle::new(
            [(from, y.start), (to, y.end)],
            GREY.mix(0.15).filled(),
        )])?;
        let style: TextStyle = text(13);
        let height = if is_under_legend(from) { 0.5 } else { 0.96 };
        let at = (from, y.start + height * (y.end - y.start));
        chart.draw_series([Text::new(*what, at, style)])?;
    }
    for (index, (line, colour)) in plot.lines.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let place = |(at, value): &(f64, f64)| (plot.x.place(*at), plot.y.place(*value));
        let is_shown = |(at, value): &(f64, f64)| {
            (x.start..=x.end).contains(at) && (y.start..=y.end).contains(value)
        };
        let points = line.points.iter().map(place).filter(is_shown);
        let style = ShapeStyle::from(colour).stroke_width(2);
        let drawn = match line.mark {
            Mark::Joined => {
                let beneath = plot.lines[..index]
                    .iter()
                    .filter(|line| line.mark == Mark::Joined);
                let beneath: Vec<Vec<_>> = beneath
                    .map(|line| line.points.iter().map(place).filter(is_shown).collect())
                    .collect();
                let close = 0.005 * (y.end - y.start);
                let dashes = dashes(&points.collect::<Vec<_>>(), &beneath, &x, close);
                let dashes = dashes.into_iter().map(|dash| PathElement::new(dash, style));
                chart.draw_series(dashes)?
            }
            Mark::Dots => {
                chart.draw_series(points.map(|point| Circle::new(point, 4, style.filled())))?
            }
        };
        drawn
            .label(line.name.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    let invisible: RGBAColor = TRANSPARENT;
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(invisible)
        .border_style(invisible)
        .label_font(text(14))
        .draw()?;
    area.present()?;
    Ok(())
}

/// How many dashes there are from the left to the right.
const DASHES: f64 = 60.0;

/// The parts of a line that are drawn: all of it, but only every other dash, or third and so on, where it lies on lines
/// that were drawn before, so that these can be seen.
fn dashes(line: &[Place], beneath: &[Vec<Place>], x: &Range<f64>, close: f64) -> Vec<Vec<Place>> {
    let lies_on = |other: &[Place], (x, y): Place| {
        let found = other.binary_search_by(|(at, _)| at.total_cmp(&x));
        found.is_ok_and(|found| (other[found].1 - y).abs() <= close)
    };
    let dash = |at: f64| (at - x.start) / (x.end - x.start) * DASHES;
    let mut dashes: Vec<Vec<Place>> = Vec::new();
    let mut draw = |from, to| match dashes.last_mut() {
        Some(dash) if dash.last() == Some(&from) => dash.push(to),
        _ => dashes.push(vec![from, to]),
    };
    for pair in line.windows(2) {
        let [from, to] = [pair[0], pair[1]];
        let is_under = |other: &&Vec<_>| pair.iter().all(|&point| lies_on(other, point));
        let under = beneath.iter().filter(is_under).count();
        if under == 0 || from.0 >= to.0 {
            draw(from, to);
            continue;
        }
        let (first, last) = (dash(from.0), dash(to.0));
        let at = |place: f64| {
            let part = ((place - first) / (last - first)).clamp(0.0, 1.0);
            (
                from.0 + part * (to.0 - from.0),
                from.1 + part * (to.1 - from.1),
            )
        };
        let numbers = first.floor() as usize..last.ceil() as usize;
        for number in numbers.filter(|number| number % (under + 1) == 0) {
            draw(at(number as f64), at(number as f64 + 1.0));
        }
    }
    dashes
}

impl Axis {
    /// Where a value is on the axis.
    fn place(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => value,
            Scale::Log => value.log10(),
        }
    }

    fn shown(&self) -> Range<f64> {
        self.place(self.range.start)..self.place(self.range.end)
    }

    /// How many labels there are: one for each power of ten on a logarithmic scale.
    fn ticks(&self) -> usize {
        let shown = self.shown();
        match self.scale {
            Scale::Linear => 10,
            Scale::Log => (shown.end - shown.start).ceil() as usize + 1,
        }
    }

    /// The value at a place, as text.
    fn label(&self, place: f64) -> String {
        let value = match self.scale {
            Scale::Linear => place,
            Scale::Log => 10_f64.powf(place),
        };
        let rounded = (value * 1e6).round() / 1e6;
        format!("{rounded}")
    }
}
