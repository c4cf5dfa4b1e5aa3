# packages: smolagents[openai]
# setting: api_base
from smolagents import CodeAgent, OpenAIServerModel

import talk

model = OpenAIServerModel(model_id=talk.MODEL, api_base=talk.BASE, api_key=talk.KEY, max_tokens=256)
agent = CodeAgent(tools=[], model=model, max_steps=2, verbosity_level=0)
for turn, text in enumerate(talk.ASKED):
    agent.run(text, reset=turn == 0)
