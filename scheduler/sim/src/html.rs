//! The report as one HTML file: tables and inline SVG, nothing from elsewhere, no script.

mod plot;

use crate::report::{Comparison, RunReport};
use std::fmt::Write;

/// Colours of the policies in their order (Okabe and Ito's palette, readable by colour-blind people,
/// then its darker shades).
const COLOURS: [&str; 15] = [
    "#0072b2", "#56b4e9", "#d55e00", "#e69f00", "#b8860b", "#8c6d1f", "#a0522d", "#009e73",
    "#66a61e", "#1b7f5c", "#cc79a7", "#7b3294", "#b2182b", "#666666", "#000000",
];

const STYLE: &str = "\
body{margin:0 auto;max-width:76rem;padding:2rem 1.5rem 4rem;background:#fff;color:#1d2733;\
font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}\
h1{font-size:1.7rem;margin:0 0 .2rem}h2{font-size:1.25rem;margin:0}\
h3{font-size:.95rem;margin:0 0 .4rem;color:#465566;font-weight:600}\
p{margin:.3rem 0 .8rem}.quiet{color:#5d6b7a;font-size:.87rem}\
nav{margin:1rem 0 0;columns:14rem;font-size:.87rem}nav a{display:block}a{color:#0b5c92}\
section{margin-top:3rem;padding-top:1.2rem;border-top:2px solid #d9e0e7}\
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.83rem;margin:.6rem 0 1.2rem;\
font-variant-numeric:tabular-nums;white-space:nowrap}\
th,td{padding:.25rem .6rem;text-align:right;border-bottom:1px solid #e6ebf0}\
th{color:#465566;font-weight:600;border-bottom:2px solid #c4ced8}\
th:first-child,td:first-child{text-align:left}tr.fab td{background:#eef6fc;font-weight:600}\
td.good{color:#0a6b3d}td.bad{color:#b2182b}\
td i{display:inline-block;width:.75em;height:.75em;border-radius:2px;margin-right:.5em}\
dl{display:flex;flex-wrap:wrap;gap:.3rem 1.6rem;margin:.4rem 0 1rem;font-size:.87rem}\
dl div{display:flex;gap:.45rem}dt{color:#5d6b7a}dd{margin:0;font-variant-numeric:tabular-nums}\
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(26rem,1fr));gap:1.2rem}\
figure{margin:0 0 1.2rem}summary{color:#0b5c92;font-size:.87rem;cursor:pointer;margin-bottom:.8rem}svg{width:100%;height:auto;display:block}\
svg text{font:11px system-ui,sans-serif;fill:#465566}.violation{color:#b2182b}";

/// The page of some comparisons.
pub fn page(comparisons: &[Comparison]) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>VAS scheduling report</title>\n<style>{STYLE}</style></head><body>\n\
         <h1>Scheduling report</h1>\n<p class=\"quiet\">Scheduling policies over the same worlds in \
         virtual time. Ages are milliseconds from capture to result. fab is the production scheduler \
         as the workload sets it, fab-defaults as production sets it; the other rows are the batching \
         rules of other systems. Columns and bounds are explained in docs/simulator.md.</p>\n"
    );
    if comparisons.len() > 1 {
        page += "<nav>";
        for c in comparisons {
            let name = escape(&c.workload);
            let _ = write!(page, "<a href=\"#{name}\">{name}</a>");
        }
        page += "</nav>\n";
    }
    for comparison in comparisons {
        section(&mut page, comparison);
    }
    page + "</body></html>\n"
}

fn section(page: &mut String, c: &Comparison) {
    let name = escape(&c.workload);
    let _ = write!(
        page,
        "<section id=\"{name}\"><h2>{name}</h2>\n<p>{}</p>\n<dl>{}</dl>\n",
        escape(&c.description),
        facts(c)
    );
    table(page, c);
    if c.rows.iter().any(|row| row.models.len() > 1) {
        models(page, c);
    }
    page.push_str("<div class=\"pair\">");
    figure(page, "Age of results: share that is at most this old", &plot::ages(c));
    figure(page, "Served share of what was asked, by assignment", &plot::shares(c));
    page.push_str("</div>\n");
    let launches = |page: &mut String, row: &RunReport| {
        let title = format!("Launches of {} in the first 400 ms that were measured", row.policy);
        figure(page, &title, &plot::launches(row));
    };
    let drawn: Vec<&RunReport> = c.rows.iter().filter(|r| !r.plots.launches.is_empty()).collect();
    if let Some((first, others)) = drawn.split_first() {
        launches(page, first);
        if !others.is_empty() {
            page.push_str("<details><summary>Launches of the other policies</summary>\n");
            others.iter().for_each(|row| launches(page, row));
            page.push_str("</details>\n");
        }
    }
    for row in &c.rows {
        for violation in &row.violations {
            let (policy, violation) = (escape(&row.policy), escape(violation));
            let _ = writeln!(page, "<p class=\"violation\">broken by {policy}: {violation}</p>");
        }
    }
    page.push_str("</section>\n");
}

fn facts(c: &Comparison) -> String {
    let mut text = String::new();
    let mut fact = |name: &str, value: String| {
        let _ = write!(text, "<div><dt>{name}</dt><dd>{value}</dd></div>");
    };
    fact("seed", c.seed.to_string());
    fact("measured", format!("{} s after {} s", c.seconds, c.warm_up_s));
    let Some(b) = &c.bounds else {
        fact("bounds", "none: the world does not become steady".into());
        return text;
    };
    let ms = |v: Option<f64>| v.map_or_else(|| "-".into(), |v| format!("{v:.1} ms"));
    fact("load rho", format!("{:.3}", b.rho));
    fact("B1 single frame", ms(Some(b.b1_ms)));
    fact("B2 mean age", ms(b.b2_ms));
    fact("B3 largest age", ms(b.b3_ms));
    fact("B6 fair goodput", format!("{:.1}/s", b.b6_per_s));
    if let Some(theta) = b.theta {
        fact("fair share theta", format!("{theta:.3}"));
    }
    text
}

fn table(page: &mut String, c: &Comparison) {
    let cells = c.cells();
    let heads = Comparison::heads();
    let shown: Vec<usize> =
        (0..heads.len()).filter(|i| cells.iter().any(|row| row[*i] != "-")).collect();
    page.push_str("<div class=\"wide\"><table><tr>");
    for &i in &shown {
        let _ = write!(page, "<th>{}</th>", heads[i]);
    }
    page.push_str("</tr>\n");
    for (number, (row, cells)) in c.rows.iter().zip(&cells).enumerate() {
        let class = if row.policy == crate::report::FAB { " class=\"fab\"" } else { "" };
        let _ = write!(page, "<tr{class}>");
        for &i in &shown {
            let mark = match i {
                0 => format!("<i style=\"background:{}\"></i>", colour(number)),
                _ => String::new(),
            };
            let class = tone(heads[i], row);
            let _ = write!(page, "<td{class}>{mark}{}</td>", escape(&cells[i]));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table></div>\n");
}

/// Late results and lost goodput stand out.
fn tone(head: &str, row: &RunReport) -> &'static str {
    let bad = match head {
        "late %" => row.late_share > 0.005,
        "of B6 %" => row.over_b6.is_some_and(|b| b < 0.95),
        "Jain" => row.jain.is_some_and(|j| j < 0.95),
        _ => return "",
    };
    if bad { " class=\"bad\"" } else { " class=\"good\"" }
}

fn models(page: &mut String, c: &Comparison) {
    let row = &c.rows[0];
    let rises = row.models.values().any(|m| m.p99_rise_ms.is_some());
    let _ = write!(
        page,
        "<h3>Models under {}</h3><div class=\"wide\"><table><tr><th>model</th><th>results/s</th>\
         <th>mean</th><th>p99</th><th>max</th><th>B3</th><th>B<sub>m</sub></th><th>batch</th>\
         <th>planned</th>{}</tr>",
        escape(&row.policy),
        if rises { "<th>p99 rise</th><th>max rise</th>" } else { "" }
    );
    for (name, m) in &row.models {
        let bounds = c.bounds.as_ref().or(c.beside_bounds.as_ref());
        let bound = bounds.and_then(|b| b.models.get(name));
        let text = |v: Option<f64>| v.map_or_else(|| "-".into(), |v| format!("{v:.1}"));
        let cells = [
            format!("{:.1}", m.results_per_s),
            format!("{:.1}", m.age_mean_ms),
            format!("{:.1}", m.age_p99_ms),
            format!("{:.1}", m.age_max_ms),
            text(bound.and_then(|b| b.b3_ms)),
            text(bound.map(|b| b.blocking_ms)),
            format!("{:.2}", m.batch_mean),
            text(bound.map(|b| b.batch_planned)),
        ];
        let fault = if m.faulty { " (faulty)" } else { "" };
        let _ = write!(page, "<tr><td>{}{fault}</td>", escape(name));
        for cell in &cells {
            let _ = write!(page, "<td>{cell}</td>");
        }
        if rises {
            let (p99, max) = (text(m.p99_rise_ms), text(m.max_rise_ms));
            let _ = write!(page, "<td>{p99}</td><td>{max}</td>");
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table></div>\n");
}

fn figure(page: &mut String, title: &str, svg: &str) {
    let title = match title {
        "" => String::new(),
        title => format!("<h3>{}</h3>", escape(title)),
    };
    let _ = writeln!(page, "<figure>{title}{svg}</figure>");
}

/// Colour of the policy in this row.
fn colour(row: usize) -> &'static str {
    COLOURS[row % COLOURS.len()]
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::compare;
    use crate::workload::Workload;

    #[test]
    fn a_page_holds_everything_itself() {
        let mut workload = Workload::built_in("s3").unwrap().unwrap();
        (workload.seconds, workload.warm_up_s) = (2.0, 2.0);
        workload.description = "a < b & \"c\"".into();
        let comparison = compare("s3", &workload, 1, &["fab", "nexus"]).unwrap();
        let page = page(&[comparison.clone(), comparison]);
        assert!(page.contains("a &lt; b &amp; &quot;c&quot;"));
        for from_elsewhere in ["<script", "http:", "https:", "url(", "<img", "NaN", "inf"] {
            assert!(!page.contains(from_elsewhere), "{from_elsewhere}");
        }
        for tag in ["svg", "table", "section", "figure", "details", "tr", "td", "g"] {
            let opened = page.matches(&format!("<{tag}>")).count()
                + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }
}
