# packages: langchain langchain-openai langgraph
# setting: base_url
# Old messages are replaced by a summary, which the same model writes.
# unanswered: 3
# The summaries: nothing follows them.
from langchain.agents import create_agent
from langchain.agents.middleware import SummarizationMiddleware
from langchain_openai import ChatOpenAI

import talk

model = ChatOpenAI(model=talk.MODEL, base_url=talk.BASE, api_key=talk.KEY, max_tokens=256)
summarizing = SummarizationMiddleware(model=model, trigger=("messages", 5), keep=("messages", 3))
agent = create_agent(model, tools=[], system_prompt=talk.SYSTEM, middleware=[summarizing])
messages = []
for text in talk.ASKED:
    messages = agent.invoke({"messages": messages + [{"role": "user", "content": text}]})["messages"]
