# packages: smolagents[openai]
# setting: api_base
# unanswered: 4
# Nothing follows the final answer of a task, which is asked for with another system prompt.
from smolagents import CodeAgent, OpenAIServerModel

import talk

model = OpenAIServerModel(model_id=talk.MODEL, api_base=talk.BASE, api_key=talk.KEY, max_tokens=256)
agent = CodeAgent(tools=[], model=model, max_steps=2, verbosity_level=0)
for turn, text in enumerate(talk.ASKED):
    agent.run(text, reset=turn == 0)
