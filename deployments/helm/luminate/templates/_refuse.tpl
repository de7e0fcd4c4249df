{{- define "luminate.refuse" -}}
{{- end -}}
