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

// What Prometheus itself puts to the series of a target.
var ofTargets = []string{"job", "instance"}

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
			own := map[string]string{}
			for _, pair := range metric.Label {
				own[pair.GetName()] = pair.GetValue()
			}
			// A label without a value is none.
			maps.DeleteFunc(own, func(_, value string) bool { return value == "" })
			add := func(suffix string, more ...string) {
				own := maps.Clone(own)
				own[labels.MetricName] = name + suffix
				if len(more) == 2 {
					own[more[0]] = more[1]
				}
				all = append(all, labels.FromMap(own))
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

// What an expression asks for and no gateway has: a series, or a label to put series together by.
func (all series) lacks(text string) (problems []string) {
	expression, err := parser.ParseExpr(text)
	if err != nil {
		return []string{err.Error()}
	}
	known := slices.Clone(ofTargets)
	parser.Inspect(expression, func(node parser.Node, _ []parser.Node) error {
		selector, is := node.(*parser.VectorSelector)
		if !is {
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
		aggregate, is := node.(*parser.AggregateExpr)
		if !is {
			return nil
		}
		for _, label := range aggregate.Grouping {
			if !slices.Contains(known, label) {
				problems = append(problems, fmt.Sprintf("nothing here has a label %s", label))
			}
		}
		return nil
	})
	return problems
}

// Those that a selector takes, whatever it wants of what the target is called.
func (all series) matching(matchers []*labels.Matcher) (found series) {
	for _, one := range all {
		matches := func(matcher *labels.Matcher) bool {
			return slices.Contains(ofTargets, matcher.Name) || matcher.Matches(one.Get(matcher.Name))
		}
		if !slices.ContainsFunc(matchers, func(matcher *labels.Matcher) bool { return !matches(matcher) }) {
			found = append(found, one)
		}
	}
	return found
}

// Whether a gateway has a series of this name with these labels, whatever their values.
func (all series) has(wanted labels.Labels) bool {
	names := func(of labels.Labels) (names []string) {
		of.Range(func(label labels.Label) {
			if !slices.Contains(ofTargets, label.Name) {
				names = append(names, label.Name)
			}
		})
		return names
	}
	return slices.ContainsFunc(all, func(one labels.Labels) bool {
		return one.Get(labels.MetricName) == wanted.Get(labels.MetricName) && slices.Equal(names(one), names(wanted))
	})
}
