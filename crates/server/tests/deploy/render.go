// Renders the templates of a Helm chart with Go's own text/template, which is what Helm does, and with the
// functions that this chart uses, written anew here. What Helm has beside them is not here: a chart that uses
// more does not render. Input: a JSON object with `root` (what templates see as `.`) and `templates` (name to
// text). Output: a JSON object from name to what was rendered.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strings"
	"text/template"
)

type input struct {
	Root      map[string]interface{} `json:"root"`
	Templates map[string]string      `json:"templates"`
}

func truth(value interface{}) bool {
	real, _ := template.IsTrue(value)
	return real
}

// A value as block YAML; scalars as JSON, which is YAML too.
func yaml(value interface{}, depth int) string {
	space := strings.Repeat("  ", depth)
	var lines []string
	switch value := value.(type) {
	case map[string]interface{}:
		if len(value) == 0 {
			return "{}"
		}
		var keys []string
		for key := range value {
			keys = append(keys, key)
		}
		sort.Strings(keys)
		for _, key := range keys {
			lines = append(lines, space+key+":"+below(value[key], depth))
		}
	case []interface{}:
		if len(value) == 0 {
			return "[]"
		}
		for _, item := range value {
			text := strings.TrimLeft(yaml(item, depth+1), " ")
			lines = append(lines, space+"- "+text)
		}
	default:
		text, err := json.Marshal(value)
		if err != nil {
			panic(err)
		}
		return string(text)
	}
	return strings.Join(lines, "\n")
}

func below(value interface{}, depth int) string {
	text := yaml(value, depth+1)
	if strings.HasPrefix(text, " ") {
		return "\n" + text
	}
	return " " + text
}

func indent(count int, text string) string {
	space := strings.Repeat(" ", count)
	return space + strings.ReplaceAll(text, "\n", "\n"+space)
}

func integer(value interface{}) int {
	switch value := value.(type) {
	case float64:
		return int(value)
	case int:
		return value
	}
	panic(fmt.Sprintf("not a number: %v", value))
}

func functions(all **template.Template) template.FuncMap {
	return template.FuncMap{
		"include": func(name string, root interface{}) (string, error) {
			var text bytes.Buffer
			err := (*all).ExecuteTemplate(&text, name, root)
			return text.String(), err
		},
		"required": func(message string, value interface{}) (interface{}, error) {
			if value == nil || value == "" {
				return nil, fmt.Errorf("%s", message)
			}
			return value, nil
		},
		"default": func(otherwise, value interface{}) interface{} {
			if truth(value) {
				return value
			}
			return otherwise
		},
		"quote":      func(value interface{}) string { return fmt.Sprintf("%q", fmt.Sprint(value)) },
		"toYaml":     func(value interface{}) string { return yaml(value, 0) },
		"indent":     indent,
		"nindent":    func(count int, text string) string { return "\n" + indent(count, text) },
		"int":        integer,
		"contains":   func(part, text string) bool { return strings.Contains(text, part) },
		"trimSuffix": func(suffix, text string) string { return strings.TrimSuffix(text, suffix) },
		"trunc": func(length int, text string) string {
			if len(text) > length {
				return text[:length]
			}
			return text
		},
		"join": func(separator string, values []interface{}) string {
			var texts []string
			for _, value := range values {
				texts = append(texts, fmt.Sprint(value))
			}
			return strings.Join(texts, separator)
		},
	}
}

func main() {
	var given input
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	fail(json.NewDecoder(os.Stdin).Decode(&given))
	var all *template.Template
	// A value that is not there is an error: it was misspelt, or is missing in values.yaml.
	all = template.New("").Funcs(functions(&all)).Option("missingkey=error")
	for name, text := range given.Templates {
		_, err := all.New(name).Parse(text)
		fail(err)
	}
	rendered := map[string]string{}
	for name := range given.Templates {
		if strings.HasPrefix(name, "_") {
			continue
		}
		var text bytes.Buffer
		fail(all.ExecuteTemplate(&text, name, given.Root))
		rendered[name] = text.String()
	}
	fail(json.NewEncoder(os.Stdout).Encode(rendered))
}
