#!/usr/bin/env bash
# The main job on a real model, from download to answers: run it with "make quickstart".
#
# Everything lands in quickstart/ and stays there. A second run reuses the downloads and makes the rest anew.
set -euo pipefail
cd "$(dirname "$0")/../.."
data=testdata/quickstart q=quickstart
graft="$PWD/bin/graft"
begin=$SECONDS

step() { printf '\n\033[1m== %s\033[0m  (%d s)\n' "$*" "$((SECONDS - begin))"; }
run() { printf '$ graft %s\n' "$*"; "$graft" "$@"; }

mkdir -p "$q/lib"
step "Fetch SmolLM2-135M-Instruct (GGUF, Q4_1) and ONNX Runtime"
$data/fetch.sh model "$q"
$data/fetch.sh ort "$q/lib"
model="$q/SmolLM2-135M-Instruct.Q4_1.gguf"
run doctor
run inspect "$model"

step "Quantize to NF4 with double quantization, in bitsandbytes' form"
rm -rf "$q"/{base-nf4,pirate,json,bundle,pirate.gguf,pirate.gguf.graft_manifest.json}
run quantize "$model" -o "$q/base-nf4" --type nf4

for name in pirate json; do
  step "Train a QLoRA adapter: $name ($(wc -l < $data/$name.jsonl) rows)"
  run train $data/recipe.yaml --set model="$q/base-nf4" --set data=$data/$name.jsonl --set out="$q/$name"
done

step "Merge an adapter into one GGUF file, for llama.cpp"
run merge "$q/base-nf4" "$q/pirate" -o "$q/pirate.gguf" --type f16

step "Export to ONNX with both adapters swappable"
run convert "$q/base-nf4" -o "$q/bundle" --to onnx --adapter pirate="$q/pirate" --adapter json="$q/json"
run adapter list "$q/bundle"

step "Verify every export against what it was made from"
run verify "$model" "$q/base-nf4"
run verify "$q/base-nf4" "$q/pirate.gguf" --adapter "$q/pirate"
run verify "$q/base-nf4" "$q/bundle" --b-adapter none
for name in pirate json; do
  run verify "$q/base-nf4" "$q/bundle" --adapter "$q/$name" --b-adapter $name
done

step "One program, adapters swapped while it runs, through ONNX Runtime"
ask() { printf '%s\n' "/new" "What is the capital of Sweden?" "/new" "Which animal says moo?"; }
{
  for name in none pirate json; do
    printf '/adapter %s\n' $name
    ask
  done
} | "$graft" chat "$q/bundle" --max-tokens 60

step "The default swapped from outside, under the running program"
run adapter swap "$q/bundle" pirate
coproc CHAT { "$graft" chat "$q/bundle" --max-tokens 60; }
pid=$CHAT_PID
say() { printf '%s\n' "$@" >&"${CHAT[1]}"; }
hear() { local line; for _ in $(seq "$1"); do IFS= read -r line <&"${CHAT[0]}" && printf '%s\n' "$line"; done; }
say /new "What is the capital of Sweden?"
hear 3
run adapter swap "$q/bundle" json
say /adapter /new "What is the capital of Sweden?"
hear 4
say /quit
hear 1
wait "$pid"
run adapter swap "$q/bundle" none

step "Done"
cat <<EOF
quickstart/ now holds
  base-nf4/      the model in 4 bits; transformers + bitsandbytes load it
  pirate/ json/  two adapters in PEFT's form, each with its recipe, losses (loss.svg) and model card
  pirate.gguf    the model with the pirate merged in, for llama.cpp
  bundle/        the model for ONNX Runtime with both adapters; onnxruntime-genai loads it

Try next
  bin/graft chat quickstart/bundle --adapter pirate
  bin/graft generate quickstart/base-nf4 --adapter quickstart/pirate:0.5 -p "Who are you?"
  bin/graft merge $model quickstart/json -o json-q8.gguf --type q8_0
  bin/graft train --model $model --data your-rows.jsonl -o your-adapter
EOF
