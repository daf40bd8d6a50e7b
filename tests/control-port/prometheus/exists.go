package main

import (
	"fmt"
	"io"
	"maps"
	"slices"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// Labels that Prometheus adds to the series of a target.
var targetLabels = []string{"job", "instance"}

// The series of a running gateway.
type series []labels.Labels

func read(text io.Reader) (series, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(text)
	if err != nil {
		return nil, err
	}
	all := series{labels.FromStrings(labels.MetricName, "up")}
	for name, family := range families {
		for _, metric := range family.Metric {
			values := map[string]string{}
			for _, pair := range metric.Label {
				values[pair.GetName()] = pair.GetValue()
			}
			// For Prometheus a label with an empty value does not exist.
			maps.DeleteFunc(values, func(_, value string) bool { return value == "" })
			add := func(suffix string, label ...string) {
				values := maps.Clone(values)
				values[labels.MetricName] = name + suffix
				if len(label) == 2 {
					values[label[0]] = label[1]
				}
				all = append(all, labels.FromMap(values))
			}
			if family.GetType() != dto.MetricType_HISTOGRAM {
				add("")
				continue
			}
			add("_sum")
			add("_count")
			add("_bucket", labels.BucketLabel, "+Inf")
			for _, bucket := range metric.Histogram.Bucket {
				add("_bucket", labels.BucketLabel, fmt.Sprint(bucket.GetUpperBound()))
			}
		}
	}
	return all, nil
}

// missing returns the problems of an expression: series that no gateway has, and grouping labels that none of its series has.
func (all series) missing(text string) (problems []string) {
	expression, err := parser.ParseExpr(text)
	if err != nil {
		return []string{err.Error()}
	}
	known := slices.Clone(targetLabels)
	parser.Inspect(expression, func(node parser.Node, _ []parser.Node) error {
		selector, isSelector := node.(*parser.VectorSelector)
		if !isSelector {
			return nil
		}
		found := all.matching(selector.LabelMatchers)
		if len(found) == 0 {
			problems = append(problems, fmt.Sprintf("no gateway has %s", selector))
		}
		for _, one := range found {
			one.Range(func(label labels.Label) { known = append(known, label.Name) })
		}
		return nil
	})
	parser.Inspect(expression, func(node parser.Node, _ []parser.Node) error {
		aggregate, isAggregate := node.(*parser.AggregateExpr)
		if !isAggregate {
			return nil
		}
		for _, label := range aggregate.Grouping {
			if !slices.Contains(known, label) {
				problems = append(problems, fmt.Sprintf("no series of the expression has the label %s", label))
			}
		}
		return nil
	})
	return problems
}

// matching returns the series that a selector selects. Its matchers of target labels are ignored.
func (all series) matching(matchers []*labels.Matcher) (found series) {
	for _, one := range all {
		matches := func(matcher *labels.Matcher) bool {
			return slices.Contains(targetLabels, matcher.Name) || matcher.Matches(one.Get(matcher.Name))
		}
		if !slices.ContainsFunc(matchers, func(matcher *labels.Matcher) bool { return !matches(matcher) }) {
			found = append(found, one)
		}
	}
	return found
}

// has reports whether a gateway has a series with this name and these label names. The values may differ.
func (all series) has(wanted labels.Labels) bool {
	names := func(series labels.Labels) (names []string) {
		series.Range(func(label labels.Label) {
			if !slices.Contains(targetLabels, label.Name) {
				names = append(names, label.Name)
			}
		})
		return names
	}
	return slices.ContainsFunc(all, func(one labels.Labels) bool {
		return one.Get(labels.MetricName) == wanted.Get(labels.MetricName) && slices.Equal(names(one), names(wanted))
	})
}
