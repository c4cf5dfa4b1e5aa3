# packages: @anthropic-ai/claude-code
# setting: ANTHROPIC_BASE_URL (without /v1); `--tools`, as the embedded model has 32k of context
set -eu
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
export CLAUDE_CONFIG_DIR=$home ANTHROPIC_BASE_URL=${OPENCLAW_BASE_URL%/v1} ANTHROPIC_AUTH_TOKEN=none
export ANTHROPIC_MODEL=policy ANTHROPIC_SMALL_FAST_MODEL=policy CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1
mkdir "$home/work"
cd "$home/work"
claude() { "$OPENCLAW_NODE/node_modules/.bin/claude" -p "$@" --tools Read </dev/null; }
claude "What is ${OPENCLAW_NUMBERS/ / + }?"
claude --continue "No, answer with the number alone, please."
claude --continue "That is right, thank you."
