#!/bin/sh
# The comment on a pull request, as Markdown: differences from BASE in scores and parameters, figures, the model card.
#   sh docs/ci/comment.sh origin/main > comment.md
# Run it where `dvc repro` has run. CML uploads the figures that the text links to.
set -eu
base=${1:?usage: comment.sh BASE}
report=artifacts/report

section() { # its title, and a table, of which DVC writes two lines where nothing changed
  if test "$(printf '%s\n' "$2" | wc -l)" -gt 2; then
    printf '## %s\n\n%s\n\n' "$1" "$2"
  else
    printf '## %s\n\nNothing changed.\n\n' "$1"
  fi
}

section "Scores against $base" "$(dvc metrics diff --md --precision 4 "$base")"
section "Parameters" "$(dvc params diff --md "$base")"
if test -s gate.txt; then
  printf '## Would it become the champion?\n\n```\n%s\n```\n\n' "$(cat gate.txt)"
fi
printf '## Pictures\n\n'
for name in learning_curves confusion per_class reliability; do
  if test -s "$report/$name.png"; then
    printf '![%s](./%s)\n' "$name" "$report/$name.png"
  fi
done
if test -s "$report/MODEL_CARD.md"; then
  printf '\n<details><summary>Model card</summary>\n\n%s\n\n</details>\n' "$(cat "$report/MODEL_CARD.md")"
fi
