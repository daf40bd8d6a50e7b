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

// The series of one test, and what asks them.
type world struct {
	series   []promql.Series
	interval time.Duration
	engine   *promql.Engine
}

// What a test has in it, as promtool reads it, from time 0 on.
func load(test test, interval time.Duration, real series) (*world, error) {
	options := promql.EngineOpts{MaxSamples: 1_000_000, Timeout: time.Minute, EnableAtModifier: true, EnableNegativeOffset: true}
	world := &world{interval: interval, engine: promql.NewEngine(options)}
	for _, input := range test.InputSeries {
		about, values, err := parser.ParseSeriesDesc(input.Series + " " + input.Values)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", input.Series, err)
		}
		if !real.has(about) {
			return nil, fmt.Errorf("no gateway has a series like %s", about)
		}
		one := promql.Series{Metric: about}
		for n, value := range values {
			if !value.Omitted {
				at := (time.Duration(n) * interval).Milliseconds()
				one.Floats = append(one.Floats, promql.FPoint{T: at, F: value.Value})
			}
		}
		world.series = append(world.series, one)
	}
	return world, nil
}

// Querier makes what a world has look like a store of Prometheus.
func (w *world) Querier(_, _ int64) (storage.Querier, error) {
	query := func(_ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
		set := &set{}
		for _, one := range w.series {
			if !slices.ContainsFunc(matchers, func(it *labels.Matcher) bool { return !it.Matches(one.Metric.Get(it.Name)) }) {
				set.left = append(set.left, promql.NewStorageSeries(one))
			}
		}
		return set
	}
	return &storage.MockQuerier{SelectMockFunction: query}, nil
}

type set struct {
	now  storage.Series
	left []storage.Series
}

func (s *set) Next() bool {
	if len(s.left) == 0 {
		return false
	}
	s.now, s.left = s.left[0], s.left[1:]
	return true
}

func (s *set) At() storage.Series                { return s.now }
func (s *set) Err() error                        { return nil }
func (s *set) Warnings() annotations.Annotations { return nil }

func (w *world) ask(ctx context.Context, text string, at time.Time) (promql.Vector, error) {
	query, err := w.engine.NewInstantQuery(ctx, w, nil, text, at)
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

// The alerts of one name that sound at a time, when the rule was looked at from the beginning on.
func (w *world) firing(alertRules []rulefmt.Rule, name string, until time.Duration) ([]string, error) {
	at := slices.IndexFunc(alertRules, func(rule rulefmt.Rule) bool { return rule.Alert == name })
	if at < 0 {
		return nil, fmt.Errorf("no such alert")
	}
	rule := alertRules[at]
	var since, last map[string]time.Time
	var firing []string
	for elapsed := time.Duration(0); elapsed <= until; elapsed += w.interval {
		now := time.Unix(0, 0).UTC().Add(elapsed)
		vector, err := w.ask(context.Background(), rule.Expr, now)
		if err != nil {
			return nil, err
		}
		since, last, firing = map[string]time.Time{}, since, nil
		for _, sample := range vector {
			labels, annotations, err := w.expand(rule, sample, now)
			if err != nil {
				return nil, err
			}
			who := describe(labels, nil)
			since[who] = now
			if before, is := last[who]; is {
				since[who] = before
			}
			if now.Sub(since[who]) >= time.Duration(rule.For) {
				firing = append(firing, describe(labels, annotations))
			}
		}
	}
	return firing, nil
}

// The labels and the words of an alert, as Prometheus makes them of a rule.
func (w *world) expand(rule rulefmt.Rule, sample promql.Sample, now time.Time) (named, words map[string]string, err error) {
	named = sample.Metric.Map()
	delete(named, labels.MetricName)
	data := template.AlertTemplateData(named, nil, "", sample)
	query := func(ctx context.Context, text string, at time.Time) (promql.Vector, error) {
		return w.ask(ctx, text, at)
	}
	words = map[string]string{}
	for key, text := range rule.Annotations {
		text = "{{$labels := .Labels}}{{$value := .Value}}" + text
		expander := template.NewTemplateExpander(
			context.Background(), text, rule.Alert, data, model.TimeFromUnix(now.Unix()), query, &url.URL{}, []string{"missingkey=error"},
		)
		if words[key], err = expander.Expand(); err != nil {
			return nil, nil, err
		}
	}
	for key, value := range rule.Labels {
		named[key] = value
	}
	return named, words, nil
}

func describe(named, words map[string]string) string {
	return strings.TrimSpace(labels.FromMap(named).String() + " " + words["summary"])
}

func same(a, b []string) bool {
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}
