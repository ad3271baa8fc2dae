//! Bar charts as SVG, readable on light and dark pages.

use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 210.0;
const BAR: f64 = 16.0;

/// Groups of named bars under one title, all to one scale.
pub fn bars(title: &str, groups: &[(String, Vec<(String, f64)>)]) -> String {
    let longest = groups.iter().flat_map(|(_, bars)| bars).map(|(_, value)| *value).fold(1e-9, f64::max);
    let scale = (WIDTH - LEFT - 70.0) / longest;
    let mut body = String::new();
    let mut y = 34.0;
    for (label, bars) in groups {
        let _ = writeln!(body, r#"<text x="8" y="{:.0}" font-weight="bold">{label}</text>"#, y + 12.0);
        y += 20.0;
        for (name, value) in bars {
            let color = if name.starts_with("hyper-session") { "#2f81f7" } else { "#8b949e" };
            let (width, middle) = ((value * scale).max(1.0), y + 12.0);
            let shown = if longest < 20.0 { format!("{value:.2}") } else { format!("{value:.0}") };
            let _ = writeln!(
                body,
                r#"<text x="{:.0}" y="{middle:.0}" text-anchor="end">{name}</text><rect x="{LEFT}" y="{y:.0}" width="{width:.1}" height="{BAR}" fill="{color}"/><text x="{:.0}" y="{middle:.0}">{shown}</text>"#,
                LEFT - 8.0,
                LEFT + width + 6.0,
            );
            y += BAR + 4.0;
        }
        y += 10.0;
    }
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y:.0}" font-family="system-ui, sans-serif" font-size="12" fill="#808890">
<text x="8" y="18" font-size="14" font-weight="bold">{title}</text>
{body}</svg>
"##
    )
}
