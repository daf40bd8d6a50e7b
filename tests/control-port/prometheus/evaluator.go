package main

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/template"
	"github.com/prometheus/prometheus/util/annotations"
)

// evaluator evaluates alerting rules over the series of one test.
type evaluator struct {
	series   []promql.Series
	interval time.Duration
	engine   *promql.Engine
}

// load parses the series of a test, as promtool does. They begin at time 0.
func load(test test, interval time.Duration, metrics series) (*evaluator, error) {
	options := promql.EngineOpts{MaxSamples: 1_000_000, Timeout: time.Minute, EnableAtModifier: true, EnableNegativeOffset: true}
	result := &evaluator{interval: interval, engine: promql.NewEngine(options)}
	for _, input := range test.InputSeries {
		metric, values, err := parser.ParseSeriesDesc(input.Series + " " + input.Values)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", input.Series, err)
		}
		if !metrics.has(metric) {
			return nil, fmt.Errorf("no gateway has a series like %s", metric)
		}
		one := promql.Series{Metric: metric}
		for n, value := range values {
			if !value.Omitted {
				at := (time.Duration(n) * interval).Milliseconds()
				one.Floats = append(one.Floats, promql.FPoint{T: at, F: value.Value})
			}
		}
		result.series = append(result.series, one)
	}
	return result, nil
}

// Querier implements storage.Queryable over the series of the test.
func (e *evaluator) Querier(_, _ int64) (storage.Querier, error) {
	query := func(_ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
		set := &seriesSet{}
		for _, one := range e.series {
			if !slices.ContainsFunc(matchers, func(matcher *labels.Matcher) bool { return !matcher.Matches(one.Metric.Get(matcher.Name)) }) {
				set.remaining = append(set.remaining, promql.NewStorageSeries(one))
			}
		}
		return set
	}
	return &storage.MockQuerier{SelectMockFunction: query}, nil
}

type seriesSet struct {
	current   storage.Series
	remaining []storage.Series
}

func (s *seriesSet) Next() bool {
	if len(s.remaining) == 0 {
		return false
	}
	s.current, s.remaining = s.remaining[0], s.remaining[1:]
	return true
}

func (s *seriesSet) At() storage.Series                { return s.current }
func (s *seriesSet) Err() error                        { return nil }
func (s *seriesSet) Warnings() annotations.Annotations { return nil }

func (e *evaluator) query(ctx context.Context, text string, at time.Time) (promql.Vector, error) {
	query, err := e.engine.NewInstantQuery(ctx, e, nil, text, at)
	if err != nil {
		return nil, err
	}
	defer query.Close()
	result := query.Exec(ctx)
	if result.Err != nil {
		return nil, result.Err
	}
	vector, err := result.Vector()
	return slices.Clone(vector), err
}

// firing evaluates a rule at each interval from time 0, and returns its alerts that fire at the end.
func (e *evaluator) firing(alertRules []rulefmt.Rule, name string, until time.Duration) ([]string, error) {
	at := slices.IndexFunc(alertRules, func(rule rulefmt.Rule) bool { return rule.Alert == name })
	if at < 0 {
		return nil, fmt.Errorf("no such alert")
	}
	rule := alertRules[at]
	var since, last map[string]time.Time
	var firing []string
	for elapsed := time.Duration(0); elapsed <= until; elapsed += e.interval {
		now := time.Unix(0, 0).UTC().Add(elapsed)
		vector, err := e.query(context.Background(), rule.Expr, now)
		if err != nil {
			return nil, err
		}
		since, last, firing = map[string]time.Time{}, since, nil
		for _, sample := range vector {
			labels, annotations, err := e.expand(rule, sample, now)
			if err != nil {
				return nil, err
			}
			key := describe(labels, nil)
			since[key] = now
			if before, found := last[key]; found {
				since[key] = before
			}
			if now.Sub(since[key]) >= time.Duration(rule.For) {
				firing = append(firing, describe(labels, annotations))
			}
		}
	}
	return firing, nil
}

// expand returns the labels and the annotations of an alert, as Prometheus makes them from a rule.
func (e *evaluator) expand(rule rulefmt.Rule, sample promql.Sample, now time.Time) (named, texts map[string]string, err error) {
	named = sample.Metric.Map()
	delete(named, labels.MetricName)
	data := template.AlertTemplateData(named, nil, "", sample)
	query := func(ctx context.Context, text string, at time.Time) (promql.Vector, error) {
		return e.query(ctx, text, at)
	}
	texts = map[string]string{}
	for key, text := range rule.Annotations {
		text = "{{$labels := .Labels}}{{$value := .Value}}" + text
		expander := template.NewTemplateExpander(
			context.Background(), text, rule.Alert, data, model.TimeFromUnix(now.Unix()), query, &url.URL{}, []string{"missingkey=error"},
		)
		if texts[key], err = expander.Expand(); err != nil {
			return nil, nil, err
		}
	}
	for key, value := range rule.Labels {
		named[key] = value
	}
	return named, texts, nil
}

func describe(named, texts map[string]string) string {
	return strings.TrimSpace(labels.FromMap(named).String() + " " + texts["summary"])
}

func haveSameElements(a, b []string) bool {
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}
