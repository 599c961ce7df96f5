// Command crdcheck says what an API server would say, without one: it runs the validation code of
// k8s.io/apiextensions-apiserver on a CustomResourceDefinition and on example objects.
//
//	crdcheck CRD.yaml < cases.json > verdict.json
//
// cases.json: [{"name": "...", "object": {...}, "old": {...} or absent}]; an object with "old" is an update.
// verdict.json: {"crd": [errors], "cases": {name: [{"field", "type", "detail"}]}, "kept": {name: object after pruning}}
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	v1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdvalidation "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"
)

type testCase struct {
	Name   string         `json:"name"`
	Object map[string]any `json:"object"`
	Old    map[string]any `json:"old"`
}

type problem struct {
	Field  string `json:"field"`
	Type   string `json:"type"`
	Detail string `json:"detail"`
}

type verdict struct {
	CRD   []problem                 `json:"crd"`
	Cases map[string][]problem      `json:"cases"`
	Kept  map[string]map[string]any `json:"kept"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 2 {
		return fmt.Errorf("usage: crdcheck CRD.yaml < cases.json")
	}
	crd, err := load(os.Args[1])
	if err != nil {
		return err
	}
	result := verdict{Cases: map[string][]problem{}, Kept: map[string]map[string]any{}}
	ctx := context.Background()
	crd.Status.StoredVersions = []string{crd.Spec.Versions[0].Name} // what the server writes when a definition is created
	result.CRD = problems(crdvalidation.ValidateCustomResourceDefinition(ctx, crd))
	if len(result.CRD) == 0 {
		if err := judge(ctx, crd, &result); err != nil {
			return err
		}
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

// load reads the definition as the server does: unknown fields are an error, defaults are set, then the internal form.
func load(path string) (*apiextensions.CustomResourceDefinition, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	external := &v1.CustomResourceDefinition{}
	if err := yaml.UnmarshalStrict(raw, external); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	v1.SetDefaults_CustomResourceDefinition(external)
	v1.SetDefaults_CustomResourceDefinitionSpec(&external.Spec)
	internal := &apiextensions.CustomResourceDefinition{}
	if err := v1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(external, internal, nil); err != nil {
		return nil, err
	}
	return internal, nil
}

// judge applies to each case what the server applies to a request: pruning, defaults, schema, list types, CEL rules.
func judge(ctx context.Context, crd *apiextensions.CustomResourceDefinition, result *verdict) error {
	raw, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	cases := []testCase{}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &cases); err != nil {
			return fmt.Errorf("cases: %w", err)
		}
	}
	schemaOfVersion, err := apiextensions.GetSchemaForVersion(crd, crd.Spec.Versions[0].Name)
	if err != nil {
		return err
	}
	structural, err := schema.NewStructural(schemaOfVersion.OpenAPIV3Schema)
	if err != nil {
		return err
	}
	schemaValidator, _, err := validation.NewSchemaValidator(schemaOfVersion.OpenAPIV3Schema)
	if err != nil {
		return err
	}
	rules := cel.NewValidator(structural, true, celconfig.PerCallLimit)
	for _, one := range cases {
		object := integers(one.Object).(map[string]any)
		pruning.Prune(object, structural, true)
		defaulting.Default(object, structural)
		var old any
		var errs field.ErrorList
		if one.Old != nil {
			old = integers(one.Old)
			errs = validation.ValidateCustomResourceUpdate(nil, object, old, schemaValidator)
		} else {
			errs = validation.ValidateCustomResource(nil, object, schemaValidator)
		}
		errs = append(errs, listtype.ValidateListSetsAndMaps(nil, structural, object)...)
		if rules != nil && len(errs) == 0 {
			celErrs, _ := rules.Validate(ctx, nil, structural, object, old, celconfig.RuntimeCELCostBudget)
			errs = append(errs, celErrs...)
		}
		result.Cases[one.Name] = problems(errs)
		result.Kept[one.Name] = object
	}
	return nil
}

// integers turns whole JSON numbers into int64, as the API machinery's own decoder does.
func integers(value any) any {
	switch typed := value.(type) {
	case map[string]any:
		for key, item := range typed {
			typed[key] = integers(item)
		}
	case []any:
		for index, item := range typed {
			typed[index] = integers(item)
		}
	case float64:
		if typed == float64(int64(typed)) {
			return int64(typed)
		}
	}
	return value
}

func problems(errs field.ErrorList) []problem {
	out := []problem{}
	for _, err := range errs {
		out = append(out, problem{Field: err.Field, Type: string(err.Type), Detail: err.Detail})
	}
	return out
}
