package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"go.yaml.in/yaml/v2"
)

// The part of the format of `promtool test rules` that the tests use. promtool itself would add the client libraries of four cloud providers.
type testFile struct {
	RuleFiles          []string       `yaml:"rule_files"`
	EvaluationInterval model.Duration `yaml:"evaluation_interval"`
	Tests              []test         `yaml:"tests"`
}

type test struct {
	Name        string `yaml:"name"`
	InputSeries []struct {
		Series string `yaml:"series"`
		Values string `yaml:"values"`
	} `yaml:"input_series"`
	AlertRuleTests []struct {
		EvalTime  model.Duration `yaml:"eval_time"`
		AlertName string         `yaml:"alertname"`
		Expected  []struct {
			Labels      map[string]string `yaml:"exp_labels"`
			Annotations map[string]string `yaml:"exp_annotations"`
		} `yaml:"exp_alerts"`
	} `yaml:"alert_rule_test"`
}

// rules checks the rules that a test file names, and returns the problems.
func rules(path string) (problems []string) {
	content, err := os.ReadFile(path)
	if err != nil {
		return []string{err.Error()}
	}
	var file testFile
	if err := yaml.UnmarshalStrict(content, &file); err != nil {
		return []string{fmt.Sprintf("%s: %v", path, err)}
	}
	var alertRules []rulefmt.Rule
	for _, name := range file.RuleFiles {
		groups, errs := rulefmt.ParseFile(filepath.Join(filepath.Dir(path), name), false, model.UTF8Validation)
		for _, err := range errs {
			problems = append(problems, err.Error())
		}
		if len(errs) > 0 {
			return problems
		}
		for _, group := range groups.Groups {
			alertRules = append(alertRules, group.Rules...)
		}
	}
	metrics, err := read(os.Stdin)
	if err != nil {
		return []string{fmt.Sprint("Prometheus cannot parse the metrics: ", err)}
	}
	for _, rule := range alertRules {
		for _, problem := range metrics.missing(rule.Expr) {
			problems = append(problems, fmt.Sprintf("%s: %s", rule.Alert, problem))
		}
	}
	firing, silent := map[string]bool{}, map[string]bool{}
	for _, test := range file.Tests {
		evaluator, err := load(test, time.Duration(file.EvaluationInterval), metrics)
		if err != nil {
			problems = append(problems, fmt.Sprintf("%s: %v", test.Name, err))
			continue
		}
		for _, wanted := range test.AlertRuleTests {
			tested := map[bool]map[string]bool{true: firing, false: silent}[len(wanted.Expected) > 0]
			tested[wanted.AlertName] = true
			expected := []string{}
			for _, alert := range wanted.Expected {
				expected = append(expected, describe(alert.Labels, alert.Annotations))
			}
			got, err := evaluator.firing(alertRules, wanted.AlertName, time.Duration(wanted.EvalTime))
			if err != nil {
				problems = append(problems, fmt.Sprintf("%s: %s: %v", test.Name, wanted.AlertName, err))
			} else if !haveSameElements(got, expected) {
				problems = append(problems, fmt.Sprintf("%s: %s after %s:\n  expected %q\n  got      %q",
					test.Name, wanted.AlertName, wanted.EvalTime, expected, got))
			}
		}
	}
	for _, rule := range alertRules {
		if !firing[rule.Alert] {
			problems = append(problems, rule.Alert+": no test in which it fires")
		}
		if !silent[rule.Alert] {
			problems = append(problems, rule.Alert+": no test in which it does not fire")
		}
	}
	if len(problems) == 0 {
		fmt.Printf("%d alerts fire exactly when expected\n", len(alertRules))
	}
	return problems
}
