"""Makes dashboard.json: a dashboard for Grafana with the metrics of buttress.

    pip install 'grafana-foundation-sdk==1769699998!10.1.0'
    python examples/ops/dashboard.py > examples/ops/dashboard.json
"""

from grafana_foundation_sdk.builders import common, dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement, TooltipDisplayMode
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableRefresh, VariableSort

SOURCE = DataSourceRef(type_val="prometheus", uid="${source}")

# Rows of panels: title, unit, and for each line its legend and its query. "name" is the label of the layers.
ROWS = [
    ("Calls", [
        ("Operations by outcome", "ops", [
            ("{{name}} {{outcome}}", 'sum by (name, outcome) (rate(buttress_calls_total{stage="operation",SELECT}[$__rate_interval]))'),
        ]),
        ("Failed operations", "percentunit", [
            ("{{name}}", 'sum by (name) (rate(buttress_calls_total{stage="operation",outcome=~"failure|overload|timeout|rejected",SELECT}[$__rate_interval]))'
             ' / sum by (name) (rate(buttress_calls_total{stage="operation",SELECT}[$__rate_interval]))'),
        ]),
        ("Duration of operations", "s", [
            ("{{name}} p50", 'histogram_quantile(0.5, sum by (name, le) (rate(buttress_call_duration_seconds_bucket{stage="operation",SELECT}[$__rate_interval])))'),
            ("{{name}} p99", 'histogram_quantile(0.99, sum by (name, le) (rate(buttress_call_duration_seconds_bucket{stage="operation",SELECT}[$__rate_interval])))'),
        ]),
        ("Duration of attempts, and their timeout", "s", [
            ("{{name}} p99", 'histogram_quantile(0.99, sum by (name, le) (rate(buttress_call_duration_seconds_bucket{stage="attempt",SELECT}[$__rate_interval])))'),
            ("{{name}} {{layer}}", 'max by (name, layer) (buttress_timeout_seconds{SELECT})'),
        ]),
    ]),
    ("Refusals and retries", [
        ("Refused calls", "ops", [
            ("{{name}} {{layer}} {{reason}} {{mode}}", 'sum by (name, layer, reason, mode) (rate(buttress_rejections_total{SELECT}[$__rate_interval]))'),
        ]),
        ("Timeouts", "ops", [
            ("{{name}} {{layer}} {{mode}}", 'sum by (name, layer, mode) (rate(buttress_timeouts_total{SELECT}[$__rate_interval]))'),
        ]),
        ("Retries", "ops", [
            ("{{name}} {{decision}}", 'sum by (name, decision) (rate(buttress_retry_decisions_total{SELECT}[$__rate_interval]))'),
        ]),
        ("Budget for retries", "short", [
            ("{{name}} tokens", 'sum by (name) (buttress_budget_tokens{SELECT})'),
            ("{{name}} capacity", 'sum by (name) (buttress_budget_capacity{SELECT})'),
        ]),
    ]),
    ("Circuit breakers and limits", [
        ("Breakers that are not closed", "short", [
            ("{{name}} {{state}}", 'sum by (name, state) (buttress_breaker_state{state!="closed",SELECT})'),
        ]),
        ("Openings of breakers", "short", [
            ("{{name}}", 'sum by (name) (increase(buttress_breaker_openings_total{SELECT}[$__rate_interval]))'),
        ]),
        ("Calls in flight, and the limit", "short", [
            ("{{name}} in flight", 'sum by (name) (buttress_in_flight{SELECT})'),
            ("{{name}} limit", 'sum by (name) (buttress_limit{SELECT})'),
        ]),
        ("Rate limits", "ops", [
            ("{{name}} tokens", 'sum by (name) (buttress_rate_limit_tokens{SELECT})'),
            ("{{name}} per second", 'sum by (name) (buttress_rate_limit_per_second{SELECT})'),
        ]),
    ]),
    ("Queues and fallbacks", [
        ("Waiting calls", "short", [
            ("{{name}} {{layer}}", 'sum by (name, layer) (buttress_queue_depth{SELECT})'),
        ]),
        ("Fallbacks", "ops", [
            ("{{name}} {{result}}", 'sum by (name, result) (rate(buttress_fallbacks_total{SELECT}[$__rate_interval]))'),
        ]),
    ]),
    ("Balancers and hedges", [
        ("Endpoints by state", "short", [
            ("{{name}} {{state}}", 'sum by (name, state) (buttress_endpoints{SELECT})'),
        ]),
        ("Ejections", "short", [
            ("{{name}} {{method}} {{mode}}", 'sum by (name, method, mode) (increase(buttress_ejections_total{SELECT}[$__rate_interval]))'),
        ]),
        ("Latency of each endpoint", "s", [
            ("{{name}} {{endpoint}}", 'max by (name, endpoint) (buttress_endpoint_latency_seconds{SELECT} > 0)'),
        ]),
        ("Discovery and health checks that run", "short", [
            ("{{name}} discovery", 'sum by (name) (buttress_discovery_running{SELECT})'),
            ("{{name}} health checks", 'sum by (name) (buttress_health_check_running{SELECT})'),
        ]),
        ("Hedges", "ops", [
            ("{{name}} {{result}}", 'sum by (name, result) (rate(buttress_hedges_total{SELECT}[$__rate_interval]))'),
        ]),
    ]),
]


def panel(title, unit, lines):
    """Returns a panel of half a row."""
    built = timeseries.Panel().title(title).unit(unit).min(0).datasource(SOURCE).span(12).height(7)
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST)
    built = built.legend(legend.placement(LegendPlacement.BOTTOM).show_legend(True).calcs([]))
    built = built.tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    for place, (legend, query) in enumerate(lines):
        query = query.replace("SELECT", 'name=~"$name"')
        line = prometheus.Dataquery().expr(query).legend_format(legend).ref_id("ABCD"[place])
        built = built.with_target(line.range())
    return built


def main():
    built = (
        dashboard.Dashboard("buttress")
        .uid("buttress")
        .tags(["buttress"])
        .refresh("10s")
        .time("now-30m", "now")
        .with_variable(dashboard.DatasourceVariable("source").label("Source").type("prometheus"))
        .with_variable(
            dashboard.QueryVariable("name")
            .label("Name")
            .query("label_values(buttress_calls_total, name)")
            .datasource(SOURCE)
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            .all_value(".*")
        )
    )
    for title, panels in ROWS:
        built = built.with_row(dashboard.Row(title))
        for about in panels:
            built = built.with_panel(panel(*about))
    print(JSONEncoder(sort_keys=True, indent=2).encode(built.build()))


if __name__ == "__main__":
    main()
