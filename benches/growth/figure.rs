//! The figure: a panel for channels and one for streams, as SVG.

use std::fmt::Write;
use std::fs;

use crate::common::options::Options;
use crate::common::report::Report;
use crate::common::servers::root;

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 280.0;
/// Around the plot of a panel: left, top, right and bottom.
const MARGINS: [f64; 4] = [52.0, 34.0, 24.0, 46.0];
const COLORS: [&str; 2] = ["#0969da", "#bc4c00"];

/// Costs by a size: the size is on a logarithmic axis, the cost on a linear one from 0.
pub struct Panel {
    pub title: &'static str,
    pub axis: &'static str,
    pub lines: Vec<Line>,
}

pub struct Line {
    pub name: &'static str,
    pub points: Vec<(f64, f64)>,
}

/// Writes the figure to the documentation with `--write`, else to `target`.
pub fn write(panels: &[Panel], options: &Options, report: &Report) {
    let folder = root().join(if options.writes { "docs/benchmarks" } else { "target" });
    fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("growth.svg");
    fs::write(&path, draw(panels)).expect("the figure is written");
    eprintln!("the figure is in {}", path.display());
    report.add_figure("growth-figure", "![CPU time by channels and by streams](benchmarks/growth.svg)");
}

fn draw(panels: &[Panel]) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
        WIDTH * f64::from(u32::try_from(panels.len()).expect("two"))
    );
    let mut left = 0.0;
    for panel in panels {
        let _ = writeln!(svg, "<g transform=\"translate({left},0)\">");
        draw_panel(&mut svg, panel);
        svg += "</g>\n";
        left += WIDTH;
    }
    svg + "</svg>\n"
}

fn draw_panel(svg: &mut String, panel: &Panel) {
    let points = || panel.lines.iter().flat_map(|line| &line.points).filter(|point| point.1.is_finite());
    let (first, last) = points().fold((f64::MAX, f64::MIN), |(a, b), (x, _)| (a.min(*x), b.max(*x)));
    let step = step(points().map(|point| point.1).fold(1.0, f64::max));
    let most = (points().map(|point| point.1).fold(1.0, f64::max) / step).ceil() * step;
    let [before, above, after, below] = MARGINS;
    let decades = (last / first).log10().max(1e-9);
    let x = |value: f64| before + (WIDTH - before - after) * (value / first).log10() / decades;
    let y = |value: f64| HEIGHT - below - (HEIGHT - above - below) * value / most;
    let right = WIDTH - after;
    let mut text = |x: f64, y: f64, anchor: &str, color: &str, text: &str| {
        let _ =
            writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{color}\">{text}</text>");
    };
    text(before, 18.0, "start", "#1f2328", panel.title);
    text((before + right) / 2.0, HEIGHT - 8.0, "middle", "#1f2328", panel.axis);
    let mut rows = String::new();
    let mut value = 0.0;
    while value <= most + step / 2.0 {
        text(before - 6.0, y(value) + 4.0, "end", "#59636e", &value.to_string());
        let at = y(value);
        let _ = writeln!(rows, "<path d=\"M{before},{at:.1}H{right}\" stroke=\"#d1d9e0\"/>");
        value += step;
    }
    for (value, _) in panel.lines.first().map(|line| &line.points).into_iter().flatten() {
        text(x(*value), HEIGHT - below + 18.0, "middle", "#59636e", &value.to_string());
    }
    for (index, (line, color)) in panel.lines.iter().zip(COLORS).enumerate() {
        let offset = 14.0 * f64::from(u32::try_from(index).expect("two"));
        text(right, above - 18.0 + offset, "end", color, line.name);
        let path: Vec<String> = line.points.iter().map(|(at, cost)| format!("{:.1},{:.1}", x(*at), y(*cost))).collect();
        let _ = writeln!(rows, "<path d=\"M{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>", path.join("L"));
        for (at, cost) in &line.points {
            let _ = writeln!(rows, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{color}\"/>", x(*at), y(*cost));
        }
    }
    svg.push_str(&rows);
}

/// The distance of the grid's lines: 1, 2 or 5 times a power of ten, for about five lines.
fn step(most: f64) -> f64 {
    let power = 10f64.powf((most / 5.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|step| most / step <= 5.0).unwrap_or(power)
}
