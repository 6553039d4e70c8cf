"""Entry of the app; one file per page. Run by `forecast app CONFIG`, which sets FORECAST_OUTPUT."""

import streamlit as st

# An emoji: the icon of a material symbol would be fetched from its maker's servers.
st.set_page_config(page_title="forecast", page_icon="📈", layout="wide")
# Streamlit leaves 96 px above the first line; the results are worth more than that.
st.html("<style>[data-testid=stMainBlockContainer] {padding-top: 3.5rem; padding-bottom: 3rem}</style>")
pages = [st.Page("pages/models.py", title="Models", icon=":material/leaderboard:", default=True)]
st.navigation(pages, position="top").run()
